"""Queueing told apart from prefill, each with where the knowledge comes from."""

from enum import StrEnum

import msgspec


class Source(StrEnum):
    """Where a phase's duration comes from."""

    OBSERVED = "observed"  # we saw both ends
    REPORTED = "reported"  # the engine's own figure for this request
    DERIVED = "derived"  # TTFT minus the other phase, which was reported
    LOWER_BOUND = "lower_bound"  # queueing: only our own queue was seen
    UPPER_BOUND = "upper_bound"  # prefill: dispatch to first token, any wait inside the engine still in it


class Phase(msgspec.Struct, frozen=True, array_like=True):
    """A duration in seconds and its provenance."""

    seconds: float
    source: Source


class Hints(msgspec.Struct, frozen=True, array_like=True):
    """What the engine itself reported about one request, as durations in seconds.

    ``resolution`` is the step of the engine's own clock output (TGI reports whole milliseconds): a report may be
    off by that much without being a contradiction.
    """

    queueing: float | None = None
    prefill: float | None = None
    decode: float | None = None
    resolution: float = 0.001


_NOTHING = Hints()


class Split(msgspec.Struct, frozen=True, array_like=True):
    """Both phases where they are known, and the reasons for which reports were dropped.

    ``reported_queueing`` is the engine's own queue figure in seconds, if it is possible: kept beside ours.
    """

    queueing: Phase | None = None
    prefill: Phase | None = None
    conflicts: tuple[str, ...] = ()
    reported_queueing: float | None = None


def split(ttft: float, own_queue: float, hints: Hints | None = None, *, sole_queue: bool = False) -> Split:
    """Split the TTFT of a streamed request into queueing and prefill, which always sum to it.

    ``own_queue`` is the part of it that the request spent in our own admission queue. ``sole_queue`` is the
    operator's word that nothing queues behind ours, which makes both phases observed. A reported prefill wins over a
    reported queue, because engines' queue figures miss real waiting (vLLM stamps it after the running step).
    """
    told, conflicts = _possible(hints, ttft - own_queue, "ttft") if hints else (_NOTHING, ())
    if sole_queue:
        queueing, prefill = Phase(own_queue, Source.OBSERVED), Phase(ttft - own_queue, Source.OBSERVED)
    elif told.prefill is not None:
        seconds = min(told.prefill, ttft)
        queueing, prefill = Phase(ttft - seconds, Source.DERIVED), Phase(seconds, Source.REPORTED)
    elif told.queueing is not None:
        seconds = min(own_queue + told.queueing, ttft)
        queueing, prefill = Phase(seconds, Source.REPORTED), Phase(ttft - seconds, Source.DERIVED)
    else:
        queueing, prefill = Phase(own_queue, Source.LOWER_BOUND), Phase(ttft - own_queue, Source.UPPER_BOUND)
    return Split(queueing, prefill, conflicts, told.queueing)


_UNKNOWN = Split()


def split_whole(latency: float, hints: Hints | None) -> Split:
    """Split a request without a first token of its own (not streamed), which only the engine's figures can do.

    The wait is what reported prefill and decode leave of the latency.
    """
    if hints is None:
        return _UNKNOWN
    told, conflicts = _possible(hints, latency, "latency")
    if told.prefill is None or told.decode is None:
        return Split(None, None, conflicts, told.queueing)
    queueing = latency - told.prefill - told.decode
    if queueing < -told.resolution:
        return Split(None, None, (*conflicts, "phases_exceed_latency"), told.queueing)
    phases = Phase(max(queueing, 0.0), Source.DERIVED), Phase(told.prefill, Source.REPORTED)
    return Split(*phases, conflicts, told.queueing)


def _possible(hints: Hints, observed: float, what: str) -> tuple[Hints, tuple[str, ...]]:
    """The figures that can be true of ``observed`` seconds, and what is wrong with the others."""
    limit = observed + hints.resolution
    figures = (("queueing", hints.queueing), ("prefill", hints.prefill), ("decode", hints.decode))
    checked = figures if what == "latency" else figures[:2]  # decode comes after the TTFT
    wrong = {
        name: f"{name}_negative" if value < 0 else f"{name}_exceeds_{what}"
        for name, value in checked
        if value is not None and not 0 <= value <= limit  # said so that NaN is wrong too
    }
    if not wrong:
        return hints, ()
    queueing, prefill, decode = (None if name in wrong else value for name, value in figures)
    return Hints(queueing, prefill, decode, hints.resolution), tuple(wrong.values())
