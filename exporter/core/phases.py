"""Queueing told apart from prefill, each with where the knowledge comes from."""

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Where a phase's duration comes from."""

    OBSERVED = "observed"  # we saw both ends
    REPORTED = "reported"  # the engine's own figure for this request
    DERIVED = "derived"  # TTFT minus the other phase, which was reported
    LOWER_BOUND = "lower_bound"  # queueing: only our own queue was seen
    UPPER_BOUND = "upper_bound"  # prefill: dispatch to first token, any wait inside the engine still in it


@dataclass(frozen=True, slots=True)
class Phase:
    """A duration in seconds and its provenance."""

    seconds: float
    source: Source


@dataclass(frozen=True, slots=True)
class Hints:
    """What the engine itself reported about one request, as durations in seconds.

    ``resolution`` is the step of the engine's own clock output (TGI reports whole milliseconds): a report may be
    off by that much without being a contradiction.
    """

    queueing: float | None = None
    prefill: float | None = None
    decode: float | None = None
    resolution: float = 0.001


@dataclass(frozen=True, slots=True)
class Split:
    """Both phases where they are known, and the reasons for which reports were dropped."""

    queueing: Phase | None = None
    prefill: Phase | None = None
    conflicts: tuple[str, ...] = ()


def split(ttft: float, own_queue: float, hints: Hints | None = None, *, sole_queue: bool = False) -> Split:
    """Split the TTFT of a streamed request into queueing and prefill, which always sum to it.

    ``own_queue`` is the part of it that the request spent in our own admission queue. ``sole_queue`` is the
    operator's word that nothing queues behind ours, which makes both phases observed. A reported prefill wins over a
    reported queue, because engines' queue figures miss real waiting (vLLM stamps it after the running step).
    """
    if sole_queue:
        return Split(Phase(own_queue, Source.OBSERVED), Phase(ttft - own_queue, Source.OBSERVED))
    conflicts: list[str] = []
    if hints is not None:
        limit = ttft - own_queue + hints.resolution
        if hints.prefill is not None:
            if 0 <= hints.prefill <= limit:
                prefill = min(hints.prefill, ttft)
                return Split(Phase(ttft - prefill, Source.DERIVED), Phase(prefill, Source.REPORTED))
            conflicts.append("prefill_negative" if hints.prefill < 0 else "prefill_exceeds_ttft")
        if hints.queueing is not None:
            if 0 <= hints.queueing <= limit:
                queueing = min(own_queue + hints.queueing, ttft)
                return Split(Phase(queueing, Source.REPORTED), Phase(ttft - queueing, Source.DERIVED), tuple(conflicts))
            conflicts.append("queueing_negative" if hints.queueing < 0 else "queueing_exceeds_ttft")
    return Split(Phase(own_queue, Source.LOWER_BOUND), Phase(ttft - own_queue, Source.UPPER_BOUND), tuple(conflicts))


def split_whole(latency: float, hints: Hints | None) -> Split:
    """Split a request without a first token of its own (not streamed), which only the engine's figures can do.

    The wait is what reported prefill and decode leave of the latency.
    """
    if hints is None or hints.prefill is None or hints.decode is None:
        return Split()
    queueing = latency - hints.prefill - hints.decode
    if hints.prefill < 0 or hints.decode < 0:
        return Split(conflicts=("prefill_negative" if hints.prefill < 0 else "decode_negative",))
    if queueing < 0:
        return Split(conflicts=("phases_exceed_latency",))
    return Split(Phase(queueing, Source.DERIVED), Phase(hints.prefill, Source.REPORTED))
