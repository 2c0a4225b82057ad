"""The OTLP receiver understands what the official exporters send, by both protocols."""

from contextlib import closing
from typing import Literal

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from support.otlp import OtlpReceiver
from support.waiting import DeadlineError


def exporter(receiver: OtlpReceiver) -> SpanExporter:
    if receiver.protocol == "grpc":
        return GrpcExporter(endpoint=receiver.endpoint, insecure=True)
    return HttpExporter(endpoint=f"{receiver.endpoint}/v1/traces")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_span_arrives_with_everything_it_carries(protocol: Literal["http/protobuf", "grpc"]) -> None:
    with OtlpReceiver(protocol) as receiver:
        provider = TracerProvider(resource=Resource({"service.name": "here"}))
        provider.add_span_processor(SimpleSpanProcessor(exporter(receiver)))
        tracer = provider.get_tracer("scope")
        with closing(_Shutdown(provider)), tracer.start_as_current_span("chat m", kind=SpanKind.SERVER) as span:
            span.set_attributes({"n": 3, "reasons": ["stop"], "ratio": 0.5})
            with tracer.start_as_current_span("decode"):
                span.add_event("first", {"k": "v"})
            span.set_status(Status(StatusCode.ERROR, "why"))
        child, parent = receiver.wait_for(2)
    assert (parent.name, parent.kind, parent.status, parent.status_message) == ("chat m", "server", "error", "why")
    assert parent.attributes == {"n": 3, "reasons": ["stop"], "ratio": 0.5}
    assert parent.events[0][0] == "first"
    assert (child.parent_id, child.trace_id, parent.parent_id) == (parent.span_id, parent.trace_id, "")
    assert parent.resource["service.name"] == "here"
    assert parent.scope == "scope"
    assert 0 <= child.seconds <= parent.seconds


def test_spans_that_do_not_come_are_named_in_the_complaint() -> None:
    with OtlpReceiver() as receiver, pytest.raises(DeadlineError, match="0 came"):
        receiver.wait_for(1, within=0.05)


class _Shutdown:
    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def close(self) -> None:
        self._provider.shutdown()
