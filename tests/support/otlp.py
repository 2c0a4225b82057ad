"""A real OTLP receiver, HTTP/protobuf or gRPC, that keeps spans as plain values (alone: `python -m support.otlp`)."""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import gzip
import http.server
import signal
import threading
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal, Self

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from support.ports import free_port
from support.waiting import DEADLINE, DeadlineError

Protocol = Literal["http/protobuf", "grpc"]
Request = trace_service_pb2.ExportTraceServiceRequest
Response = trace_service_pb2.ExportTraceServiceResponse


@dataclasses.dataclass(frozen=True)
class Span:
    """One span; times are nanoseconds since the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """"" for a root."""
    kind: str
    """server, internal, client, ..."""
    start_ns: int
    end_ns: int
    status: str
    """unset, ok or error."""
    status_message: str
    attributes: dict[str, object]
    events: list[tuple[str, int, dict[str, object]]]
    resource: dict[str, object]
    scope: str
    trace_state: str

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e9


def plain(value: AnyValue) -> object:
    """An OTLP attribute value as the Python value it is."""
    which = value.WhichOneof("value")
    if which == "array_value":
        return [plain(one) for one in value.array_value.values]
    if which == "kvlist_value":
        return attributes(value.kvlist_value.values)
    return getattr(value, which) if which else None


def attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    """OTLP key-value pairs as a dictionary."""
    return {pair.key: plain(pair.value) for pair in pairs}


def spans_of(request: Request) -> list[Span]:
    """Every span of an export request."""
    return [
        _span(span, attributes(of_resource.resource.attributes), of_scope.scope.name)
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _span(span: trace_pb2.Span, resource: dict[str, object], scope: str) -> Span:
    return Span(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
        status_message=span.status.message,
        attributes=attributes(span.attributes),
        events=[(event.name, event.time_unix_nano, attributes(event.attributes)) for event in span.events],
        resource=resource,
        scope=scope,
        trace_state=span.trace_state,
    )


class OtlpReceiver:
    """Receives spans on a free loopback port, in threads; a context manager."""

    def __init__(self, protocol: Protocol = "http/protobuf", *, port: int = 0, keep: bool = True) -> None:
        self.protocol = protocol
        self.port = port or free_port()
        self.requests = 0
        self.refuse_with: int | None = None
        """An HTTP status to answer instead of accepting; gRPC then says UNAVAILABLE."""
        self._keep = keep
        self._changed = threading.Condition()
        self._spans: list[Span] = []
        self._stop = contextlib.ExitStack()

    def __enter__(self) -> Self:
        (self._serve_http if self.protocol == "http/protobuf" else self._serve_grpc)()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The OTEL_* variables that send traces here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    @property
    def spans(self) -> list[Span]:
        """The spans so far, in order of arrival."""
        with self._changed:
            return list(self._spans)

    def wait_for(self, wanted: int | Callable[[list[Span]], bool], within: float = DEADLINE) -> list[Span]:
        """The spans, once there are so many, or once the condition holds for them."""

        def enough() -> bool:
            return len(self._spans) >= wanted if isinstance(wanted, int) else wanted(self._spans)

        with self._changed:
            if not self._changed.wait_for(enough, within):
                names = [span.name for span in self._spans]
                raise DeadlineError(f"not within {within:g} s: the spans wanted; {len(names)} came: {names[-40:]}")
            return list(self._spans)

    def clear(self) -> None:
        """Forget the spans so far."""
        with self._changed:
            self._spans.clear()

    def take(self, request: Request) -> None:
        """Keep the spans of one request."""
        spans = spans_of(request) if self._keep else []
        with self._changed:
            self.requests += 1
            self._spans += spans
            self._changed.notify_all()

    def _serve_http(self) -> None:
        handler = type("Handler", (_HttpHandler,), {"receiver": self})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        self._stop.callback(server.server_close)
        self._stop.callback(thread.join, 5)
        self._stop.callback(server.shutdown)

    def _serve_grpc(self) -> None:
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_GrpcService(self), server)  # type: ignore[no-untyped-call]
        server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._stop.callback(lambda: server.stop(1).wait(5))


class _HttpHandler(http.server.BaseHTTPRequestHandler):
    receiver: ClassVar[OtlpReceiver]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status = self.receiver.refuse_with or (200 if self.path in {"/v1/traces", "/v1/metrics", "/v1/logs"} else 404)
        if status == 200 and self.path == "/v1/traces":
            self.receiver.take(Request.FromString(body))
        answer = Response().SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _GrpcService(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(self, request: Request, context: grpc.ServicerContext) -> Response:  # noqa: N802 the service's name
        if self._receiver.refuse_with is not None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "scripted refusal")
        self._receiver.take(request)
        return Response()


def main() -> None:
    """Receive and throw away until SIGTERM: the benchmark's peer."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--protocol", choices=["http/protobuf", "grpc"], default="http/protobuf")
    options = parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with OtlpReceiver(options.protocol, port=options.port, keep=False) as receiver:
        ended.wait()
        print(f"export requests received: {receiver.requests}", flush=True)  # noqa: T201 for whoever collects output


if __name__ == "__main__":
    main()
