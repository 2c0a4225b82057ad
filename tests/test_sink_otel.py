"""Spans made of Timelines, and their way to a collector."""

import itertools
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from support.ports import free_port

from exporter.core.outcome import ErrorType, Outcome
from exporter.core.phases import Phase, Source
from exporter.core.timeline import Identity, Timeline, Usage
from exporter.sinks import otel, semconv, spans

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
WALL = 1_790_000_000.0
NONE = Resource({})


def identity(**given: object) -> Identity:
    base: dict[str, object] = {
        "operation": "chat", "model": "llama-3-8b", "provider": "vllm", "stream": True,
        "trace_id": TRACE, "span_id": SPAN, "parent_id": PARENT, "tracestate": "vendor=1",
    }  # fmt: skip
    return Identity(**(base | given))  # type: ignore[arg-type]


def streamed(**given: object) -> Timeline:
    base: dict[str, object] = {
        "identity": identity(), "arrival": 100.0, "first_token": 100.5, "last_token": 102.5, "end": 102.75,
        "outcome": Outcome.COMPLETED, "status": 200, "queueing": Phase(0.125, Source.DERIVED),
        "prefill": Phase(0.375, Source.REPORTED), "tpots": (0.1,), "usage": Usage(12, 22, 4, 3), "events": 21,
        "reported_queueing": 0.05, "response_model": "llama-3-8b-instruct", "response_id": "chatcmpl-1",
        "finish_reasons": ("stop",), "stalled": 0.5,
    }  # fmt: skip
    return Timeline(**(base | given))  # type: ignore[arg-type]


def bare(**given: object) -> Timeline:
    """A request of which nothing is known but that it ended."""
    base: dict[str, object] = {
        "identity": identity(model=None, stream=False, parent_id=None, tracestate=None),
        "arrival": 5.0, "end": 5.5, "outcome": Outcome.FAILED, "error_type": ErrorType.CONNECT,
    }  # fmt: skip
    return Timeline(**(base | given))  # type: ignore[arg-type]


def at(moment: float) -> int:
    return round(WALL) * 10**9 + round(moment * 1e9)


def test_the_server_span_has_the_ids_the_relay_used() -> None:
    server = spans.spans(streamed(), WALL, NONE)[0]
    assert server.name == "chat llama-3-8b"
    assert server.kind is SpanKind.SERVER
    assert server.context is not None
    assert server.parent is not None
    assert f"{server.context.trace_id:032x}" == TRACE
    assert f"{server.context.span_id:016x}" == SPAN
    assert f"{server.parent.span_id:016x}" == PARENT
    assert server.parent.is_remote
    assert server.context.trace_state.to_header() == "vendor=1"
    assert (server.start_time, server.end_time) == (at(100.0), at(102.75))
    assert [(event.name, event.timestamp) for event in server.events] == [("first_token", at(100.5))]


def test_three_contiguous_phases_say_where_they_are_known_from() -> None:
    server, *children = spans.spans(streamed(), WALL, NONE)
    assert [(span.name, (span.attributes or {})[semconv.PHASE_SOURCE]) for span in children] == [
        ("queueing", "derived"),
        ("prefill", "reported"),
        ("decode", "observed"),
    ]
    edges = [(span.start_time, span.end_time) for span in children]
    assert edges == [(at(100.0), at(100.125)), (at(100.125), at(100.5)), (at(100.5), at(102.5))]
    assert all(span.parent == server.context and span.kind is SpanKind.INTERNAL for span in children)


def test_phases_of_a_whole_answer_fill_it_to_its_end() -> None:
    timeline = streamed(first_token=None, last_token=None, tpots=())
    assert [(phase.name, phase.source) for phase in spans.phases(timeline)][-1] == ("decode", Source.REPORTED)
    assert list(spans.phases(timeline))[-1].end == timeline.end
    assert spans.attributes(timeline)[semconv.DECODE] == pytest.approx(2.25)
    assert semconv.TTFT not in spans.attributes(timeline)


def test_every_attribute_of_a_full_timeline() -> None:
    assert spans.attributes(streamed(first_answer=101.0)) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "llama-3-8b",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "llama-3-8b-instruct",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 22,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "gen_ai.latency.time_to_first_token": 0.5,
        "gen_ai.latency.e2e": 2.75,
        "gen_ai.latency.time_in_queue": 0.125,
        "gen_ai.latency.time_in_model_prefill": 0.375,
        "gen_ai.latency.time_in_model_decode": 2.0,
        "gen_ai.server.time_per_output_token": 0.1,
        "inference.time_to_first_answer_token": 1.0,
        "inference.decode_tps": 10.0,
        "inference.tps": 8.0,
        "inference.outcome": "completed",
        "inference.tokens.estimated": False,
        "inference.client.stalled_seconds": 0.5,
        "inference.engine.reported_queue_seconds": 0.05,
        "http.response.status_code": 200,
    }


def test_what_is_not_known_is_not_there() -> None:
    (server,) = spans.spans(bare(), WALL, NONE)
    assert server.name == "chat"
    assert server.parent is None
    assert server.events == ()
    assert dict(server.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.stream": False,
        "gen_ai.latency.e2e": 0.5,
        "inference.outcome": "failed",
        "error.type": "connect",
    }


@pytest.mark.parametrize(
    ("outcome", "error", "status", "code", "told"),
    [
        (Outcome.COMPLETED, ErrorType.NONE, 200, StatusCode.UNSET, None),
        (Outcome.LENGTH, ErrorType.NONE, 200, StatusCode.UNSET, None),
        (Outcome.CANCELLED, ErrorType.NONE, None, StatusCode.UNSET, None),
        (Outcome.FAILED, ErrorType.RESET, 200, StatusCode.ERROR, "reset"),
        (Outcome.FAILED, ErrorType.RELAY_DIED, None, StatusCode.ERROR, "relay_died"),
        (Outcome.FAILED, ErrorType.UPSTREAM_5XX, 500, StatusCode.ERROR, "upstream_5xx"),
        (Outcome.REJECTED, ErrorType.UPSTREAM_5XX, 503, StatusCode.ERROR, "upstream_5xx"),
        (Outcome.REJECTED, ErrorType.QUEUE_FULL, 429, StatusCode.UNSET, "queue_full"),
        (Outcome.TIMED_OUT, ErrorType.IDLE_TIMEOUT, 504, StatusCode.ERROR, "idle_timeout"),
        (Outcome.INVALID, ErrorType.UPSTREAM_4XX, 404, StatusCode.UNSET, "upstream_4xx"),
    ],
)
def test_the_status_follows_the_rule_for_server_spans(
    outcome: Outcome, error: ErrorType, status: int | None, code: StatusCode, told: str | None
) -> None:
    timeline = bare(outcome=outcome, error_type=error, status=status)
    assert spans.status(timeline).status_code is code
    assert spans.attributes(timeline).get(semconv.ERROR_TYPE) == told


def test_a_record_folded_twice_makes_the_same_spans() -> None:
    first, again = (spans.spans(streamed(), WALL, NONE) for _ in range(2))
    assert [span.context for span in first] == [span.context for span in again]
    assert len({span.context.span_id for span in first if span.context}) == len(first)


moments = st.floats(0, 1e5, allow_nan=False)
seconds = st.floats(0, 1e3, allow_nan=False)


@given(moments, seconds, seconds, seconds, seconds)
def test_children_are_contiguous_and_inside(a: float, q: float, p: float, d: float, rest: float) -> None:
    first = a + (q + p)
    timeline = streamed(arrival=a, first_token=first, last_token=first + d, end=first + d + rest,
                        queueing=Phase(q, Source.OBSERVED), prefill=Phase(p, Source.OBSERVED))  # fmt: skip
    server, *children = spans.spans(timeline, WALL, NONE)
    edges = [server.start_time]
    for child in children:
        assert child.start_time == edges[-1]
        edges.append(child.end_time)
    tick = 1_000  # nanoseconds: sums of floats differ in their last digits
    assert all(b is not None and c is not None and c >= b - tick for b, c in itertools.pairwise(edges))


def test_every_attribute_is_documented() -> None:
    text = Path(__file__).parents[1].joinpath("docs/spans.md").read_text()
    assert [name for name in semconv.ATTRIBUTES if f"`{name}`" not in text] == []
    constants = {value for value in vars(semconv).values() if isinstance(value, str) and "." in value}
    assert {name for name in constants if name.startswith(("gen_ai.", "inference.", "http."))} <= set(
        semconv.ATTRIBUTES
    )


def test_only_sampled_requests_make_spans() -> None:
    memory = InMemorySpanExporter()
    sink = otel.OtelSink(memory, NONE)
    sink.record(streamed(identity=identity(sampled=False)), WALL)
    sink.record(streamed(), WALL)
    sink.close(5)
    assert [span.name for span in memory.get_finished_spans()] == ["chat llama-3-8b", "queueing", "prefill", "decode"]
    assert sink.dropped == 0


def test_ids_that_are_none_cost_the_spans_and_no_exception() -> None:
    sink = otel.OtelSink(InMemorySpanExporter(), NONE)
    sink.record(streamed(identity=identity(span_id="not hexadecimal")), WALL)
    assert sink.dropped == 1
    sink.close(5)


class Stuck(SpanExporter):
    """Takes its first batch and holds it until told."""

    def __init__(self) -> None:
        self.entered, self.go, self.got = threading.Event(), threading.Event(), 0

    def export(self, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.go.wait(30)
        self.got += len(batch)
        return SpanExportResult.SUCCESS


def test_spans_beyond_the_queue_are_counted_as_dropped() -> None:
    stuck = Stuck()
    sink = otel.OtelSink(stuck, NONE, limit=8, batch=4)
    sink.record(streamed(), WALL)
    assert stuck.entered.wait(30)
    for _ in range(5):
        sink.record(streamed(), WALL)
    assert (sink.waiting, sink.dropped) == (4 + 8, 12)  # a crash would cost those on their way too
    stuck.go.set()
    sink.close(30)
    assert (stuck.got, sink.waiting, sink.dropped) == (12, 0, 12)


class Failing(SpanExporter):
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def export(self, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.error is not None:
            raise self.error
        return SpanExportResult.FAILURE


@pytest.mark.parametrize("error", [None, RuntimeError("no")])
def test_spans_given_up_by_the_exporter_are_counted(error: Exception | None) -> None:
    sink = otel.OtelSink(Failing(error), NONE)
    sink.record(streamed(), WALL)
    sink.close(30)
    assert sink.dropped == 4


class Collector(BaseHTTPRequestHandler):
    got: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:
        self.got.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Keep quiet."""


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    class Handler(Collector):
        got: list[ExportTraceServiceRequest] = []  # noqa: RUF012 - one list for the connections of this server

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", Handler.got
        server.shutdown()
        thread.join(5)


def names(requests: list[ExportTraceServiceRequest]) -> list[str]:
    return [
        span.name for one in requests for of in one.resource_spans for scope in of.scope_spans for span in scope.spans
    ]


def resource_of(request: ExportTraceServiceRequest) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in request.resource_spans[0].resource.attributes}


def test_otlp_over_http_reaches_a_collector(
    collector: tuple[str, list[ExportTraceServiceRequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, got = collector
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=llm-0"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sink = otel.from_environment(variables)
    assert sink is not None
    sink.record(streamed(), WALL)
    sink.close(30)
    assert names(got) == ["chat llama-3-8b", "queueing", "prefill", "decode"]
    told = resource_of(got[0])
    assert (told["service.name"], told["k8s.pod.name"]) == ("inference-exporter", "llm-0")
    assert "service.version" in told


class Service(TraceServiceServicer):
    def __init__(self) -> None:
        self.got: list[ExportTraceServiceRequest] = []

    def Export(  # noqa: N802 - the name in the protocol
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self.got.append(request)
        return ExportTraceServiceResponse()


def test_otlp_over_grpc_reaches_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    service, port = Service(), free_port()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_SERVICE_NAME": "mine",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sink = otel.from_environment(variables)
    assert sink is not None
    sink.record(streamed(), WALL)
    sink.close(30)
    server.stop(None)
    assert names(service.got)[0] == "chat llama-3-8b"
    assert resource_of(service.got[0])["service.name"] == "mine"


def test_console_writes_json(capfd: pytest.CaptureFixture[str]) -> None:
    sink = otel.from_environment({"OTEL_TRACES_EXPORTER": "console"})
    assert sink is not None
    sink.record(bare(), WALL)
    sink.close(30)
    assert json.loads(capfd.readouterr().out)["name"] == "chat"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
    ],
)
def test_no_sink_where_none_is_asked_for(environ: dict[str, str]) -> None:
    assert otel.from_environment(environ) is None


def test_a_queue_size_that_is_no_number_is_said_and_not_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        sink = otel.from_environment({"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_MAX_QUEUE_SIZE": "many"})
    assert sink is not None
    sink.close(30)
    assert "OTEL_BSP_MAX_QUEUE_SIZE=many is no positive number, 2048 is used" in caplog.text
