"""Everything that is known about one request that has ended, as one immutable value."""

import msgspec

from exporter.core.outcome import ErrorType, Outcome
from exporter.core.phases import Phase


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Who a request is: what never changes between its arrival and its end.

    ``model`` is the name in the request, as the client wrote it and not yet admitted as a label. ``trace_id`` is 32
    and ``span_id`` 16 lower-case hexadecimal digits; ``parent_id`` is the caller's span, ``None`` for a root.
    """

    operation: str
    model: str | None
    provider: str
    stream: bool
    trace_id: str
    span_id: str
    parent_id: str | None = None
    sampled: bool = True
    tracestate: str | None = None
    labels: tuple[str, ...] = ()  # values of the configured header labels, as the client sent them


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts of one request; each ``None`` where nobody told.

    ``cached_input`` and ``reasoning_output`` are subsets of input and output.
    """

    input: int | None = None
    output: int | None = None
    cached_input: int | None = None
    reasoning_output: int | None = None


class Timeline(msgspec.Struct, frozen=True, array_like=True):
    """One ended request. Moments are monotonic seconds of the process that saw it, durations are seconds.

    arrival       last byte of the request received
    first_token   first token-bearing event; ``first_answer`` the first one that is not reasoning
    last_token    last token-bearing event
    end           last byte of the answer, or the moment it was known that none would come
    queueing, prefill   sum to TTFT; a non-streamed answer has them only where the engine reports them
    tpots         TPOT of each choice for which it is known
    events        token-bearing events seen; with ``estimated`` the only thing that output tokens were counted by
    ticked        output tokens already counted by pulses while the stream ran
    stalled       seconds for which reading was stopped because the client was slow
    reported_queueing   the engine's own queue figure, kept beside ours
    ttft_told     whether the TTFT was already counted while the stream ran
    """

    identity: Identity
    arrival: float
    end: float
    outcome: Outcome
    error_type: ErrorType = ErrorType.NONE
    status: int | None = None
    first_token: float | None = None
    first_answer: float | None = None
    last_token: float | None = None
    queueing: Phase | None = None
    prefill: Phase | None = None
    tpots: tuple[float, ...] = ()
    usage: Usage = Usage()
    events: int = 0
    estimated: bool = False
    ticked: int = 0
    ttft_told: bool = False
    stalled: float = 0.0
    reported_queueing: float | None = None
    response_model: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    @property
    def latency(self) -> float:
        """Arrival to the last byte of the answer, in seconds."""
        return self.end - self.arrival

    @property
    def ttft(self) -> float | None:
        """Arrival to the first output token, in seconds; ``None`` without a token or without a stream."""
        return None if self.first_token is None else self.first_token - self.arrival

    @property
    def decode(self) -> float | None:
        """First to last output token, in seconds; ``None`` without a token."""
        if self.first_token is None or self.last_token is None:
            return None
        return self.last_token - self.first_token

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first, in seconds; ``None`` unless there is exactly one choice of it."""
        return self.tpots[0] if len(self.tpots) == 1 else None

    @property
    def time_to_first_answer(self) -> float | None:
        """Arrival to the first token that is not reasoning, in seconds; only where reasoning came first."""
        if self.first_answer is None or self.first_token is None or self.first_answer <= self.first_token:
            return None
        return self.first_answer - self.arrival
