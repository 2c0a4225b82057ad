"""What the observer knows: every message of every relay folded into totals, exactly once. No clock, no I/O.

1. A relay's incarnation is (slot, boot). Its messages are numbered; the last number folded is part of the same state
   as the totals, so a state that comes back from a checkpoint says exactly what to send again.
2. Relays run on this machine, so their monotonic clock is the observer's; the anchor of Hello makes Unix time of it.
3. What a relay that died left open ends as failed/relay_died at the moment of its last pulse, whoever writes it and
   however often: the same requests, the same spans.
"""

from collections.abc import Collection, Iterable
from typing import Protocol

import msgspec

from exporter import catalog, counting
from exporter.core.outcome import ErrorType, Outcome
from exporter.core.tally import Labels, Tally
from exporter.core.timeline import Timeline
from exporter.observer import admission, rates
from exporter.observer.admission import Admission
from exporter.records import Ended, Hello, Live, Opened, Pulse, pulse_tally
from exporter.sinks import prometheus
from exporter.sinks.prometheus import PrometheusSink

Incarnation = tuple[int, str]
"""A relay's slot and boot."""


class SpanSink(Protocol):
    """Makes spans of ended requests."""

    def record(self, timeline: Timeline, wall: float) -> None:
        """Take one ended request; ``wall`` is the Unix time, in seconds, of monotonic 0 in its process."""

    @property
    def waiting(self) -> int:
        """Spans not yet exported."""
        ...

    @property
    def dropped(self) -> int:
        """Spans lost so far."""
        ...


class RequestLog(Protocol):
    """Writes a line of ended requests."""

    def record(self, timeline: Timeline) -> None:
        """Take one ended request as the relay told it."""


class RelayState(msgspec.Struct):
    """What is known of one incarnation of a relay. ``zero`` is the Unix time of its monotonic 0."""

    relay: int
    boot: str
    pid: int
    zero: float
    at: float  # monotonic seconds of its last pulse
    folded: int = 0
    opened: dict[str, Opened] = {}
    live: list[Live] = []  # with admitted labels


class State(msgspec.Struct, array_like=True):
    """Everything that has to survive the observer. ``bases`` tells when each set of base labels last had a token."""

    header_labels: tuple[str, ...]
    totals: prometheus.State
    admitted: admission.State
    relays: list[RelayState]
    rates: rates.State
    bases: list[tuple[Labels, float | None]]
    spans_waiting: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)


class Fold:
    """The state of the observer. ``version`` changes whenever there is something new to checkpoint."""

    def __init__(
        self,
        models: tuple[str, ...] = (),
        header_labels: tuple[str, ...] = (),
        spans: SpanSink | None = None,
        requests: RequestLog | None = None,
    ) -> None:
        """``models`` and ``header_labels`` as configured; ended requests go to ``spans`` and ``requests`` too."""
        self.header_labels = header_labels
        self.totals = PrometheusSink(header_labels)
        self.admission = Admission(models, header_labels)
        self.rates = rates.TokenRates()
        self.relays: dict[Incarnation, RelayState] = {}
        self.bases: dict[Labels, float | None] = {}
        self.version = 0
        self._spans = spans
        self._requests = requests
        self._dropped = 0

    def hello(self, hello: Hello) -> int:
        """A relay begins a session; the last number folded from it, 0 for none."""
        key, zero = (hello.relay, hello.boot), hello.wall - hello.monotonic
        if key not in self.relays:
            self.relays[key] = RelayState(hello.relay, hello.boot, hello.pid, zero, hello.monotonic)
            self.version += 1
        return self.relays[key].folded

    def folded(self, key: Incarnation) -> int:
        """The last number folded from a relay, 0 for none."""
        return self.relays[key].folded if key in self.relays else 0

    def message(self, key: Incarnation, message: Pulse | Ended) -> None:
        """Fold the next message of a relay that said hello."""
        relay = self.relays[key]
        if isinstance(message, Pulse):
            self._pulse(relay, message)
        else:
            relay.opened.pop(message.timeline.identity.span_id, None)
            self._ended(message.timeline, relay.zero)
        relay.folded = message.number
        self.version += 1

    def silent(self, key: Incarnation) -> None:
        """A relay tells nothing any more: what is live in it is not known now."""
        if key in self.relays:
            self.relays[key].live = []

    def gone(self, key: Incarnation) -> None:
        """A relay died and nothing more can come from it: what it had open has failed."""
        relay = self.relays.pop(key, None)
        if relay is None:
            return
        for opened in relay.opened.values():
            self._ended(_died(opened, relay.at), relay.zero)
        self.version += 1

    def keep(self, alive: Collection[Incarnation]) -> None:
        """After a restart: of the relays in the checkpoint only these still run."""
        for key in [key for key in self.relays if key not in alive]:
            self.gone(key)

    def count(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        """Add to one of the observer's own counters."""
        tally = Tally()
        tally.inc(name, labels, amount)
        self.totals.merge(tally)
        self.version += 1

    def learn(self, names: Iterable[str]) -> None:
        """The engine lists these models."""
        self.admission.learn(names)
        self.version += 1

    def shed(self) -> None:
        """Give up what is nice to have: exemplars."""
        self.totals.load(([], [], []))
        self.version += 1

    def settle(self) -> None:
        """Take over what the parts counted by themselves: folded label values, dropped spans."""
        folded = self.admission.folded()
        if folded:
            self.totals.merge(folded)
            self.version += 1
        dropped = self._spans.dropped if self._spans else 0
        if dropped > self._dropped:
            self.count(catalog.SPANS_DROPPED, (), dropped - self._dropped)
            self._dropped = dropped

    def dump(self) -> bytes:
        """The whole state."""
        self.settle()
        return _encoder.encode(
            State(
                self.header_labels,
                self.totals.dump(),
                self.admission.dump(),
                list(self.relays.values()),
                self.rates.dump(),
                list(self.bases.items()),
                self._spans.waiting if self._spans else 0,
            )
        )

    def load(self, data: bytes) -> None:
        """Go on from a dump, into a fresh Fold; ValueError where it is none or was made with other header labels."""
        try:
            state = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{len(data)} bytes are no state of an observer: {error}") from error
        if state.header_labels != self.header_labels:
            raise ValueError(f"state with header labels {state.header_labels}, {self.header_labels} are configured")
        self.totals.load(state.totals)
        self.admission.load(state.admitted)
        self.relays = {(relay.relay, relay.boot): relay for relay in state.relays}
        self.rates.load(state.rates)
        self.bases = dict(state.bases)
        if state.spans_waiting:
            self.count(catalog.SPANS_DROPPED, (), state.spans_waiting)

    def _pulse(self, relay: RelayState, pulse: Pulse) -> None:
        tally = self.admission.tally(pulse_tally(pulse))
        live = [msgspec.structs.replace(row, labels=self.admission.live(row.labels)) for row in pulse.live]
        self.totals.merge(tally)
        relay.at, relay.live = pulse.at, live
        for opened in pulse.opened:
            relay.opened[opened.identity.span_id] = opened
        for span_id in pulse.closed:
            relay.opened.pop(span_id, None)
        for (name, labels), tokens in tally.counters.items():
            if name == catalog.TOKENS and labels[-1] == "output":
                # a pulse tells of the beat before it, in whose middle its tokens are put
                self.rates.add(labels[:-1], pulse.at - rates.BEAT / 2, tokens)
        for row in live:
            self._seen(row.labels, row.last_token, relay.zero)

    def _ended(self, timeline: Timeline, zero: float) -> None:
        admitted = self.admission.timeline(timeline)
        base = counting.base_labels(admitted.identity)
        self.totals.record(admitted, zero + timeline.end)
        self._seen(base, timeline.last_token, zero)
        if timeline.last_token is not None and timeline.usage.output is not None:
            rest = timeline.usage.output - timeline.ticked
            if rest > 0:
                self.rates.add(base, timeline.last_token, rest)
        if self._spans is not None:
            self._spans.record(admitted, zero)
        if self._requests is not None:
            self._requests.record(timeline)

    def _seen(self, base: Labels, last_token: float | None, zero: float) -> None:
        before = self.bases.setdefault(base, None)
        if last_token is not None:
            self.bases[base] = max(before or 0.0, zero + last_token)


def _died(opened: Opened, at: float) -> Timeline:
    return Timeline(
        identity=opened.identity,
        arrival=opened.arrival,
        end=max(at, opened.arrival),
        outcome=Outcome.FAILED,
        error_type=ErrorType.RELAY_DIED,
    )
