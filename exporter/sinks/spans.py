"""One Timeline as OpenTelemetry spans, made after the fact: a SERVER span and its contiguous phases.

1. The SERVER span has the ids that the relay already gave to the engine and, through it, to the engine's own spans.
2. The ids of the phases are derived from the SERVER span's, so that a record folded again after a crash makes the very
   same spans and not new ones beside them.
3. What is not known is not there: no attribute is ever 0, empty or guessed in place of unknown.
4. No prompt, answer or key: a Timeline holds none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from exporter import __version__
from exporter.core.outcome import Outcome
from exporter.core.phases import Source
from exporter.core.timeline import Identity, Timeline
from exporter.sinks import semconv

_SCOPE = InstrumentationScope("inference-exporter", __version__)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_ERRORS = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.REJECTED)
_NO_ERROR = (Outcome.COMPLETED, Outcome.LENGTH, Outcome.CANCELLED)
_CLIENT_ERRORS = range(400, 500)

Attributes = dict[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """One phase of a request: its moments in monotonic seconds and where they are known from."""

    name: str
    start: float
    end: float
    source: Source


def spans(timeline: Timeline, wall: float, resource: Resource) -> list[ReadableSpan]:
    """The spans of one request, the SERVER span first; ``wall`` is the Unix time, in seconds, of monotonic 0."""
    identity, zero = timeline.identity, round(wall * 1e9)
    context = _context(identity, int(identity.span_id, 16))
    server = ReadableSpan(
        name=span_name(identity),
        context=context,
        parent=_parent(identity),
        resource=resource,
        attributes=attributes(timeline),
        events=_events(timeline, zero),
        kind=SpanKind.SERVER,
        status=status(timeline),
        start_time=_nanoseconds(zero, timeline.arrival),
        end_time=_nanoseconds(zero, timeline.end),
        instrumentation_scope=_SCOPE,
    )
    return [server, *(_child(phase, identity, context, zero, resource) for phase in phases(timeline))]


def span_name(identity: Identity) -> str:
    """`{operation} {model}`; the operation alone where the request named no model."""
    return f"{identity.operation} {identity.model}" if identity.model else identity.operation


def phases(timeline: Timeline) -> Iterator[PhaseSpan]:
    """The phases that the request is known to have reached, each beginning where the one before it ended."""
    if timeline.queueing is None or timeline.prefill is None:
        return
    started = timeline.arrival + timeline.queueing.seconds
    first = timeline.first_token
    prefilled = started + timeline.prefill.seconds if first is None else first
    yield PhaseSpan(semconv.QUEUEING_SPAN, timeline.arrival, started, timeline.queueing.source)
    yield PhaseSpan(semconv.PREFILL_SPAN, started, prefilled, timeline.prefill.source)
    if first is None:  # not streamed: the phases are the engine's own figures, and decode is the last of them
        yield PhaseSpan(semconv.DECODE_SPAN, prefilled, timeline.end, Source.REPORTED)
    elif timeline.last_token is not None:
        yield PhaseSpan(semconv.DECODE_SPAN, first, timeline.last_token, Source.OBSERVED)


def attributes(timeline: Timeline) -> Attributes:
    """What is known about the request, by attribute name."""
    identity, usage = timeline.identity, timeline.usage
    known: dict[str, AttributeValue | None] = {
        semconv.OPERATION: identity.operation,
        semconv.PROVIDER: identity.provider,
        semconv.REQUEST_MODEL: identity.model or None,
        semconv.REQUEST_STREAM: identity.stream,
        semconv.RESPONSE_MODEL: timeline.response_model,
        semconv.RESPONSE_ID: timeline.response_id,
        semconv.FINISH_REASONS: timeline.finish_reasons or None,
        semconv.INPUT_TOKENS: usage.input,
        semconv.OUTPUT_TOKENS: usage.output,
        semconv.CACHED_INPUT_TOKENS: usage.cached_input,
        semconv.REASONING_OUTPUT_TOKENS: usage.reasoning_output,
        semconv.ESTIMATED: timeline.estimated if usage.output is not None else None,
        semconv.OUTCOME: timeline.outcome.value,
        semconv.STATUS_CODE: timeline.status,
        semconv.ERROR_TYPE: None if timeline.outcome in _NO_ERROR else timeline.error_type.value or None,
        **_durations(timeline),
    }
    return {name: value for name, value in known.items() if value is not None}


def status(timeline: Timeline) -> Status:
    """ERROR where we or the engine failed the caller.

    OpenTelemetry's rule for SERVER spans leaves every 4xx answer unset, ours (a full queue) and the engine's alike.
    """
    if timeline.outcome not in _ERRORS or timeline.status in _CLIENT_ERRORS:
        return Status(StatusCode.UNSET)
    return Status(StatusCode.ERROR, timeline.error_type.value or None)


def child_id(span_id: str, name: str) -> int:
    """The id of a phase's span, the same whenever it is made."""
    return int.from_bytes(blake2b(f"{span_id}/{name}".encode(), digest_size=8).digest(), "big") or 1


def _durations(timeline: Timeline) -> dict[str, AttributeValue | None]:
    tpot, output = timeline.tpot, timeline.usage.output
    return {
        semconv.LATENCY: timeline.latency,
        semconv.TTFT: timeline.ttft,
        semconv.FIRST_ANSWER: timeline.time_to_first_answer,
        semconv.QUEUEING: None if timeline.queueing is None else timeline.queueing.seconds,
        semconv.PREFILL: None if timeline.prefill is None else timeline.prefill.seconds,
        semconv.DECODE: _decode(timeline),
        semconv.TPOT: tpot,
        semconv.DECODE_TPS: 1 / tpot if tpot else None,
        semconv.TPS: output / timeline.latency if output and timeline.latency > 0 else None,
        semconv.STALLED: timeline.stalled or None,
        semconv.REPORTED_QUEUE: timeline.reported_queueing,
    }


def _decode(timeline: Timeline) -> float | None:
    found = [phase.end - phase.start for phase in phases(timeline) if phase.name == semconv.DECODE_SPAN]
    return found[0] if found else timeline.decode


def _events(timeline: Timeline, zero: int) -> tuple[Event, ...]:
    if timeline.first_token is None:
        return ()
    return (Event(semconv.FIRST_TOKEN_EVENT, timestamp=_nanoseconds(zero, timeline.first_token)),)


def _child(phase: PhaseSpan, identity: Identity, parent: SpanContext, zero: int, resource: Resource) -> ReadableSpan:
    return ReadableSpan(
        name=phase.name,
        context=_context(identity, child_id(identity.span_id, phase.name)),
        parent=parent,
        resource=resource,
        attributes={semconv.PHASE_SOURCE: phase.source.value},
        kind=SpanKind.INTERNAL,
        start_time=_nanoseconds(zero, phase.start),
        end_time=_nanoseconds(zero, phase.end),
        instrumentation_scope=_SCOPE,
    )


def _context(identity: Identity, span_id: int, *, remote: bool = False) -> SpanContext:
    state = TraceState.from_header([identity.tracestate]) if identity.tracestate else TraceState()
    return SpanContext(int(identity.trace_id, 16), span_id, remote, _SAMPLED, state)


def _parent(identity: Identity) -> SpanContext | None:
    return None if identity.parent_id is None else _context(identity, int(identity.parent_id, 16), remote=True)


def _nanoseconds(zero: int, moment: float) -> int:
    return zero + round(moment * 1e9)
