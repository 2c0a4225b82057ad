"""What a relay tells the observer: records, pulses, and a bounded ring of what is not acknowledged yet.

1. Nothing here waits. What the channel does not take now stays in the ring.
2. A record that finds the ring full shrinks to its counts, which add up in one tally of bounded size.
3. Numbers rise by one for each frame. A new session sends again what the observer has not acknowledged.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec.structs import replace

from exporter import catalog, counting, log, records
from exporter.core.recorder import LivePhase, Recorder
from exporter.core.tally import Labels, Tally
from exporter.core.timeline import Timeline
from exporter.records import Live, Opened

RING_BYTES = 8 * 1024 * 1024
_GAPS_LIMIT = 4096
_SERIES_LIMIT = 4096
_LATER_LIMIT = 16


class Wire(Protocol):
    """The channel to the observer, as far as a reporter needs it."""

    def write(self, data: bytes) -> None:
        """Send, or queue."""

    @property
    def full(self) -> bool:
        """Whether more than a little is queued already."""
        ...


class Reporter:
    """The relay's memory of what the observer does not know yet."""

    def __init__(
        self, hello: Callable[[], records.Hello], soon: Callable[[], None], ring_bytes: int = RING_BYTES
    ) -> None:
        """``hello`` makes the first message of each session; ``soon`` asks for a ``flush`` within some milliseconds."""
        self._hello = hello
        self._soon = soon
        self._limit = ring_bytes
        self._ring: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._number = 0
        self._unsent: deque[bytes] = deque()
        self._wire: Wire | None = None
        self._synced = False
        self._pending = Tally()
        self._live: dict[Recorder, Labels] = {}
        self._told: set[Recorder] = set()
        self._closed: list[str] = []
        self._gaps: dict[Labels, list[float]] = {}
        self._added: list[float] = []
        self._later: deque[Callable[[], None]] = deque()
        self._idle = True

    # The data plane's side

    @property
    def live(self) -> int:
        """How many requests are followed now."""
        return len(self._live)

    @property
    def unacknowledged(self) -> bool:
        """Whether the observer is still to confirm something; nothing is expected of one that is not there."""
        return self._wire is not None and bool(self._ring)

    def gaps(self, labels: Labels) -> list[float]:
        """Where the gaps between tokens of all requests with these labels are put."""
        found = self._gaps.get(labels)
        if found is None:
            found = self._gaps[labels] = []
        return found

    def opened(self, recorder: Recorder) -> None:
        """A request arrived."""
        self._live[recorder] = counting.base_labels(recorder.identity)

    def ended(self, recorder: Recorder, timeline: Timeline) -> None:
        """A request ended."""
        self._live.pop(recorder, None)
        told = recorder in self._told
        self._told.discard(recorder)
        if self._size < self._limit and self._append(lambda number: records.Ended(number, timeline)):
            self._soon()
            return
        if len(self._pending.histograms) > _SERIES_LIMIT:
            timeline = replace(timeline, identity=replace(timeline.identity, model=None))
        counting.add(timeline, self._pending)
        self._pending.inc(catalog.DEGRADED, ())
        if told:
            self._closed.append(timeline.identity.span_id)

    def later(self, work: Callable[[], None]) -> None:
        """Do with the next flush what nobody waits for.

        Together, in warm caches, the ends of answers cost 10 of 105 us of a request's CPU less than one by one.
        """
        self._later.append(work)
        if len(self._later) >= _LATER_LIMIT:
            self._catch_up()
        else:
            self._soon()

    def _catch_up(self) -> None:
        while self._later:
            self._later.popleft()()

    def count(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        """Add to one of the relay's own counters."""
        self._pending.inc(name, labels, amount)

    def added_latency(self, seconds: float) -> None:
        """The latency that the relay added to one answer."""
        self._added.append(seconds)

    # The observer's side

    def connected(self, wire: Wire) -> None:
        """A new session: say hello; what is unacknowledged waits for the answer."""
        self._wire = wire
        self._synced = False
        self._unsent.clear()
        wire.write(records.frame(self._hello()))

    def disconnected(self, wire: Wire) -> None:
        """The session is over."""
        if self._wire is wire:
            self._wire = None
            self._synced = False

    def acknowledged(self, number: int) -> None:
        """The observer has everything up to ``number``; the first time in a session, send it the rest."""
        while self._ring and self._ring[0][0] <= number:
            self._size -= len(self._ring.popleft()[1])
        if self._synced or self._wire is None:
            return
        self._synced = True
        self._unsent.extend(data for _, data in self._ring)
        self._unsent.append(records.frame(records.CaughtUp()))
        self.flush()

    def flush(self) -> None:
        """Do what was put off, and send what the channel takes now."""
        self._catch_up()
        if self._wire is None or not self._synced or not self._unsent:
            return
        while self._unsent and not self._wire.full:
            batch = [self._unsent.popleft() for _ in range(min(len(self._unsent), 64))]
            self._wire.write(b"".join(batch))

    def pulse(self, at: float) -> None:
        """Tell how things stand at ``at``; call it a few times a second."""
        self._catch_up()
        self._collect()
        idle = not self._live and not self._pending and not self._closed
        if self._size >= self._limit or (idle and self._idle):
            return
        self._idle = idle
        opened = [Opened(recorder.identity, recorder.arrival) for recorder in self._live if recorder not in self._told]
        counters, histograms = records.tally_rows(self._pending)
        live, closed = self._standing(), self._closed
        self._told.update(self._live)
        self._pending = Tally()
        self._closed = []
        self._append(lambda number: records.Pulse(number, at, live, opened, closed, counters, histograms))
        self.flush()

    def _append(self, make: Callable[[int], records.Message]) -> bool:
        """Keep a message under the next number; False, and nothing is changed, for one that cannot be written."""
        try:
            data = records.frame(make(self._number + 1))
        except (msgspec.MsgspecError, OverflowError, ValueError, TypeError) as error:
            log.error("a record cannot be written", error=f"{type(error).__name__}: {error}")
            return False
        self._number += 1
        self._ring.append((self._number, data))
        self._size += len(data)
        if self._synced:
            self._unsent.append(data)
        return True

    def _collect(self) -> None:
        """Move gaps, new tokens and first tokens of running streams into the tally."""
        for labels, gaps in self._gaps.items():
            if gaps:
                self._pending.observe_all(catalog.ITL, labels, catalog.grid(catalog.ITL), gaps)
                gaps.clear()
        if self._added:
            self._pending.observe_all(catalog.ADDED_LATENCY, (), catalog.grid(catalog.ADDED_LATENCY), self._added)
            self._added.clear()
        for recorder, labels in self._live.items():
            if recorder.seen > recorder.ticked:
                self._pending.inc(catalog.TOKENS, (*labels, "output"), recorder.seen - recorder.ticked)
                recorder.ticked = recorder.seen
            if recorder.first_token is not None and not recorder.ttft_told:
                ttft = recorder.first_token - recorder.arrival
                self._pending.observe(catalog.TTFT, labels, catalog.grid(catalog.TTFT), ttft)
                recorder.ttft_told = True
        if len(self._gaps) > _GAPS_LIMIT:
            # Names come from clients: forget those that nobody uses now.
            used = set(self._live.values())
            self._gaps = {labels: gaps for labels, gaps in self._gaps.items() if labels in used}

    def _standing(self) -> list[Live]:
        phases: dict[Labels, dict[str, tuple[int, float]]] = {}
        last: dict[Labels, float] = {}
        for recorder, labels in self._live.items():
            group = phases.setdefault(labels, {})
            phase: LivePhase = recorder.phase
            count, oldest = group.get(phase, (0, recorder.arrival))
            group[phase] = (count + 1, min(oldest, recorder.arrival))
            if recorder.last_token is not None:
                last[labels] = max(last.get(labels, recorder.last_token), recorder.last_token)
        return [Live(labels, group, last.get(labels)) for labels, group in phases.items()]
