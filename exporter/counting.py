"""What one ended request adds to the counts: the one place where a Timeline meets the catalogue."""

from exporter import catalog
from exporter.core.outcome import Outcome
from exporter.core.phases import Phase, Source
from exporter.core.tally import Labels, Tally
from exporter.core.timeline import Identity, Timeline

_FINISHED = (Outcome.COMPLETED, Outcome.LENGTH)


def base_labels(identity: Identity) -> Labels:
    """The values of the base labels, with the model as the client wrote it ("" where it wrote none)."""
    return (identity.operation, identity.model or "", identity.provider, *identity.labels)


def observations(timeline: Timeline) -> list[tuple[str, Labels, float]]:
    """The histogram observations of one request, with the extra labels of each."""
    found: list[tuple[str, Labels, float | None]] = [
        (catalog.LATENCY, (timeline.outcome.value, timeline.error_type.value), timeline.latency),
        (catalog.TTFT, (), None if timeline.ttft_told else timeline.ttft),
        (catalog.FIRST_ANSWER, (), timeline.time_to_first_answer),
        (catalog.STALLED, (), timeline.stalled or None),
        (catalog.REPORTED_QUEUE, (), timeline.reported_queueing),
        (catalog.PREFILL_RATE, (), _prefill_rate(timeline)),
        *_phase(catalog.QUEUEING, timeline.queueing),
        *_phase(catalog.PREFILL, timeline.prefill),
    ]
    if timeline.outcome in _FINISHED:
        found.append((catalog.DECODE, (), timeline.decode))
        found.extend((catalog.TPOT, (), tpot) for tpot in timeline.tpots)
        found.append((catalog.REQUEST_TOKENS, ("input",), timeline.usage.input))
        found.append((catalog.REQUEST_TOKENS, ("output",), timeline.usage.output))
    return [(name, labels, value) for name, labels, value in found if value is not None]


def add(timeline: Timeline, tally: Tally) -> None:
    """Count one ended request."""
    base = base_labels(timeline.identity)
    for name, labels, value in observations(timeline):
        tally.observe(name, base + labels, catalog.grid(name), value)
    stream = "true" if timeline.identity.stream else "false"
    status = "" if timeline.status is None else str(timeline.status)
    tally.inc(catalog.REQUESTS, (*base, timeline.outcome.value, timeline.error_type.value, status, stream))
    _add_tokens(timeline, base, tally)
    for reason in timeline.conflicts:
        tally.inc(catalog.CONFLICTS, (reason,))
    if timeline.estimated:
        tally.inc(catalog.ESTIMATED, ())


def _add_tokens(timeline: Timeline, base: Labels, tally: Tally) -> None:
    usage = timeline.usage
    if usage.input:
        tally.inc(catalog.TOKENS, (*base, "input"), usage.input)
    if usage.output is not None:
        rest = usage.output - timeline.ticked
        if rest > 0:
            tally.inc(catalog.TOKENS, (*base, "output"), rest)
        elif rest < 0:
            tally.inc(catalog.OVERCOUNT, (), -rest)
    if usage.cached_input:
        tally.inc(catalog.CACHED_TOKENS, base, usage.cached_input)
    if usage.reasoning_output:
        tally.inc(catalog.REASONING_TOKENS, base, usage.reasoning_output)


def _phase(name: str, phase: Phase | None) -> list[tuple[str, Labels, float | None]]:
    return [] if phase is None else [(name, (phase.source.value,), phase.seconds)]


def _prefill_rate(timeline: Timeline) -> float | None:
    prefill, tokens = timeline.prefill, timeline.usage.input
    if prefill is None or prefill.source is Source.UPPER_BOUND or prefill.seconds <= 0 or tokens is None:
        return None
    uncached = tokens - (timeline.usage.cached_input or 0)
    return uncached / prefill.seconds if uncached > 0 else None
