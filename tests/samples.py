"""Requests made up for tests: identities and timelines with a default for everything that a test is not about."""

from msgspec.structs import replace

from exporter.core.outcome import Outcome
from exporter.core.phases import Phase, Source
from exporter.core.timeline import Identity, Timeline, Usage

WHO = Identity(
    operation="chat",
    model="llama-3-8b",
    provider="vllm",
    stream=True,
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
)

STREAMED = Timeline(
    identity=WHO,
    arrival=100.0,
    end=104.5,
    outcome=Outcome.COMPLETED,
    status=200,
    first_token=100.5,
    first_answer=100.5,
    last_token=104.5,
    queueing=Phase(0.125, Source.DERIVED),
    prefill=Phase(0.375, Source.REPORTED),
    tpots=(0.03125,),
    usage=Usage(input=96, output=129),
    events=129,
    finish_reasons=("stop",),
)


def who(model: str | None = WHO.model, **changes: object) -> Identity:
    """An identity that differs from WHO in its model and ``changes``."""
    return replace(WHO, model=model, **changes)


def streamed(model: str | None = WHO.model, *labels: str, **changes: object) -> Timeline:
    """A timeline that differs from STREAMED in its model, header labels and ``changes``."""
    return replace(STREAMED, identity=who(model, labels=labels), **changes)
