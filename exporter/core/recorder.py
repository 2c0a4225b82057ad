"""One live request: it takes moments as they come and gives one Timeline at the end, once."""

from enum import StrEnum
from math import inf

from exporter.core.outcome import ErrorType, Outcome
from exporter.core.phases import Hints, Split, split, split_whole
from exporter.core.timeline import Identity, Timeline, Usage

_FINISHED = (Outcome.COMPLETED, Outcome.LENGTH)


class LivePhase(StrEnum):
    """Where a live request is, as far as it is known while it runs."""

    QUEUEING = "queueing"  # in our own queue
    WAITING = "waiting"  # at the engine, no token yet, queueing and prefill not told apart
    DECODE = "decode"


class Choice:
    """The clock of one choice of an answer: its first and last token, and what is left out of its TPOT."""

    __slots__ = ("base", "counted", "first", "first_count", "known", "last", "skipped_gap", "skipped_tokens")

    def __init__(self, at: float, count: int | None) -> None:
        """Start with the choice's first token-bearing event at ``at`` (seconds), ``count`` tokens if known."""
        self.first = at
        self.last = at
        self.base = at  # where the gap to the next counted token begins
        self.first_count = 1 if count is None else count
        self.counted = self.first_count
        self.known = count is not None
        self.skipped_gap = 0.0
        self.skipped_tokens = 0

    def tpot(self, tokens: int) -> float | None:
        """Decode time over the tokens after the first event, in seconds; ``None`` where there are none."""
        divisor = tokens - self.first_count - self.skipped_tokens
        return (self.last - self.first - self.skipped_gap) / divisor if divisor >= 1 else None


class Recorder:
    """Follows one request from its arrival to its end.

    Gaps between tokens are appended to ``gaps`` as they happen, in seconds, one per token, so that nothing here
    grows with the length of the answer. With several choices gaps are only taken where the engine tells how many
    tokens an event holds.
    """

    __slots__ = (
        "_dispatched",
        "_gaps",
        "_lost",
        "_several",
        "_stall_end",
        "_stalled_read",
        "arrival",
        "choices",
        "events",
        "first_answer",
        "first_token",
        "identity",
        "last_token",
        "seen",
        "stall",
        "ticked",
        "timeline",
        "ttft_told",
    )

    def __init__(self, identity: Identity, arrival: float, gaps: list[float], *, choices: int = 1) -> None:
        """Begin at ``arrival``; ``choices`` is how many answers the request asks for."""
        self.identity = identity
        self.arrival = arrival
        self.timeline: Timeline | None = None
        self.first_token: float | None = None
        self.first_answer: float | None = None
        self.last_token: float | None = None
        self.choices: dict[int, Choice] = {}
        self.events = 0
        self.seen = 0
        self.ticked = 0
        self.ttft_told = False
        self.stall = 0.0
        self._gaps = gaps
        self._several = choices > 1
        self._dispatched: float | None = None
        self._lost = False
        self._stall_end = -inf
        self._stalled_read: float | None = None

    @property
    def phase(self) -> LivePhase:
        """Where the request is now."""
        if self.first_token is not None:
            return LivePhase.DECODE
        return LivePhase.QUEUEING if self._dispatched is None else LivePhase.WAITING

    @property
    def own_queue(self) -> float:
        """From arrival to the moment the request left our own queue, in seconds; 0 while it is in it.

        A body too large to be looked into is sent on while it arrives: it left before it was here, and did not wait.
        """
        return 0.0 if self._dispatched is None else max(0.0, self._dispatched - self.arrival)

    def dispatched(self, at: float) -> None:
        """The request left our own queue for the engine; only the first time counts (a replay is not a new wait)."""
        if self._dispatched is None:
            self._dispatched = at

    def token(self, at: float, choice: int = 0, count: int | None = None, *, answer: bool = True) -> None:
        """A token-bearing event was read at ``at``, holding ``count`` tokens; ``None`` counts as one, estimated."""
        self.events += 1
        self.seen += 1 if count is None else count
        if self.first_token is None:
            self.first_token = at
        if answer and self.first_answer is None:
            self.first_answer = at
        self.last_token = at
        clock = self.choices.get(choice)
        if clock is None:
            self.choices[choice] = Choice(at, count)
            self._several = self._several or len(self.choices) > 1
            return
        clock.last = at
        if count is None:
            clock.known = False
            count = 1
        clock.counted += count
        if clock.base < self._stall_end or at == self._stalled_read:
            self._skip(clock, at, count)
        elif count:
            gap = (at - clock.base) / count
            clock.base = at
            if clock.known or not self._several:
                self._gaps.extend([gap] * count) if count > 1 else self._gaps.append(gap)

    def _skip(self, clock: Choice, at: float, count: int) -> None:
        """Leave the gap that a slow client made, and the tokens that piled up in it, out of ITL and TPOT.

        Everything in the first read after the stall had piled up, so the later events of that read are left out too.
        """
        clock.skipped_gap += at - clock.base
        clock.skipped_tokens += count
        clock.base = at
        self._stalled_read = at

    def stalled(self, begin: float, end: float) -> None:
        """Reading was stopped from ``begin`` to ``end`` because the client was slow."""
        self.stall += end - begin
        self._stall_end = end

    def lost(self) -> None:
        """From here on tokens come unseen: what was counted is an estimate, and silence is no gap."""
        self._lost = True

    def finish(  # noqa: PLR0913 - the one place where everything known at the end comes together
        self,
        at: float,
        outcome: Outcome,
        error_type: ErrorType = ErrorType.NONE,
        *,
        status: int | None = None,
        usage: Usage | None = None,
        hints: Hints | None = None,
        sole_queue: bool = False,
        finish_reasons: tuple[str, ...] = (),
        response_model: str | None = None,
        response_id: str | None = None,
    ) -> Timeline | None:
        """End the request at ``at`` and return its Timeline; ``None`` if it had ended before."""
        if self.timeline is not None:
            return None
        usage = usage or Usage()
        estimated = False
        if usage.output is None and self.events:
            estimated = self._lost or not all(choice.known for choice in self.choices.values())
            usage = Usage(usage.input, self.seen, usage.cached_input, usage.reasoning_output)
        phases = self._split(at, hints, sole_queue=sole_queue)
        if outcome not in _FINISHED:
            self._open_gap(at)
        self.timeline = Timeline(
            identity=self.identity,
            arrival=self.arrival,
            end=at,
            outcome=outcome,
            error_type=error_type,
            status=status,
            first_token=self.first_token,
            first_answer=self.first_answer,
            last_token=self.last_token,
            queueing=phases.queueing,
            prefill=phases.prefill,
            tpots=self._tpots(usage.output),
            usage=usage,
            events=self.events,
            estimated=estimated,
            ticked=self.ticked,
            ttft_told=self.ttft_told,
            stalled=self.stall,
            reported_queueing=phases.reported_queueing,
            response_model=response_model,
            response_id=response_id,
            finish_reasons=finish_reasons,
            conflicts=phases.conflicts,
        )
        return self.timeline

    def _split(self, at: float, hints: Hints | None, *, sole_queue: bool) -> Split:
        if self.first_token is None:
            return split_whole(at - self.arrival, hints)
        return split(self.first_token - self.arrival, self.own_queue, hints, sole_queue=sole_queue)

    def _tpots(self, output: int | None) -> tuple[float, ...]:
        if not self.choices:
            return ()
        if len(self.choices) == 1 and output is not None:
            found = [next(iter(self.choices.values())).tpot(output)]
        else:
            found = [clock.tpot(clock.counted) for clock in self.choices.values() if clock.known]
        return tuple(tpot for tpot in found if tpot is not None)

    def _open_gap(self, at: float) -> None:
        """At a bad end the wait for the token that never came counts too: a stall must show."""
        if self.last_token is not None and self.last_token >= self._stall_end and not self._lost:
            self._gaps.append(at - self.last_token)
