"""Hands the spans of sampled requests to the OpenTelemetry SDK's batch processor, and counts the ones it cannot.

All of `OTEL_*` that concerns traces holds, because the SDK's own parts read it: resource, batching, exporter, TLS.
Nothing here blocks or raises: a collector that is away costs spans, which are counted, and one log line a minute.
"""

import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_SDK_DISABLED,
)
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from exporter import __version__
from exporter.core.timeline import Timeline
from exporter.sinks.spans import spans

OTEL_TRACES_EXPORTER = "OTEL_TRACES_EXPORTER"  # the SDK reads it in its configurator and names it in the API
_QUEUE, _BATCH = 2048, 512  # the SDK's own defaults
_log = logging.getLogger(__name__)


class _Counted(SpanExporter):
    """Passes batches on and counts what was taken and what was lost; called by the SDK's thread alone."""

    def __init__(self, inner: SpanExporter) -> None:
        self.inner = inner
        self.taken = 0  # out of the SDK's queue
        self.done = 0  # out of our hands: delivered, or given up
        self.lost = 0

    def export(self, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(batch)
        try:
            result = self.inner.export(batch)
        except Exception as error:  # noqa: BLE001 - an exporter's fault costs its spans, never its thread
            _log.warning("spans could not be exported: %s: %s", type(error).__name__, error)
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self.lost += len(batch)
        self.done += len(batch)
        return result

    def shutdown(self) -> None:
        self.inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self.inner.force_flush(timeout_millis)


class OtelSink:
    """Takes ended requests and exports the spans of those that are sampled."""

    def __init__(self, exporter: SpanExporter, resource: Resource, limit: int = _QUEUE, batch: int = _BATCH) -> None:
        """Export in batches; at most ``limit`` spans wait, beyond that those of whole requests are dropped.

        While ``paused`` is set, everything is dropped and counted.
        """
        self._resource = resource
        self._exporter = _Counted(exporter)
        self._limit = limit
        self._handed = 0
        self._refused = 0
        self.paused = False
        self._processor = BatchSpanProcessor(self._exporter, limit, max_export_batch_size=min(limit, batch))

    def record(self, timeline: Timeline, wall: float) -> None:
        """Take one ended request; ``wall`` is the Unix time, in seconds, of monotonic 0 in its process."""
        if not timeline.identity.sampled:
            return
        try:
            made = spans(timeline, wall, self._resource)
        except ValueError as error:  # ids that are no hexadecimal numbers
            _log.warning("no spans could be made of a request: %s", error)
            self._refused += 1
            return
        queued = self._handed - self._exporter.taken  # never less than lie in the SDK's queue
        if self.paused or queued + len(made) > self._limit:
            self._refused += len(made)
            return
        self._handed += len(made)
        for span in made:
            self._processor.on_end(span)

    @property
    def waiting(self) -> int:
        """Spans that die with this process: those in the SDK's queue and those on their way to the collector."""
        return self._handed - self._exporter.done

    @property
    def dropped(self) -> int:
        """Spans lost so far, because the queue was full or the exporter gave them up."""
        return self._refused + self._exporter.lost

    def close(self, seconds: float) -> None:
        """Export what waits, for at most ``seconds``; what is left by then is dropped."""
        closing = threading.Thread(target=self._processor.shutdown, name="close spans", daemon=True)
        closing.start()
        closing.join(seconds)


def from_environment(environ: Mapping[str, str]) -> OtelSink | None:
    """The sink that the ``OTEL_*`` variables ask for; ``None`` where they ask for no traces."""
    make = _EXPORTERS.get(kind := _kind(environ))
    if make is None:
        _log.warning("%s=%s is not known, no spans are exported (%s)", OTEL_TRACES_EXPORTER, kind, _accepted())
        return None
    try:
        exporter = make(environ)
    except Exception as error:  # noqa: BLE001 - whatever the SDK makes of a variable, it costs the spans alone
        _log.warning("no spans are exported: %s: %s", type(error).__name__, error)
        return None
    if exporter is None:
        return None
    limit = _positive(environ, OTEL_BSP_MAX_QUEUE_SIZE, _QUEUE)
    return OtelSink(exporter, resource(), limit, _positive(environ, OTEL_BSP_MAX_EXPORT_BATCH_SIZE, _BATCH))


def resource() -> Resource:
    """Who we are: the environment's word first, else our own name and version."""
    told = OTELResourceDetector().detect().attributes
    ours = {SERVICE_NAME: "inference-exporter", SERVICE_VERSION: __version__}
    return Resource.create({name: value for name, value in ours.items() if not told.get(name)})


def _kind(environ: Mapping[str, str]) -> str:
    if environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
        return "none"
    named = environ.get(OTEL_TRACES_EXPORTER, "").strip().lower()
    # the specification's default is otlp to localhost; a sidecar beside no collector would only ever fail at that
    aimed = any(environ.get(name) for name in (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT))
    return named or ("otlp" if aimed else "none")


def _otlp(environ: Mapping[str, str]) -> SpanExporter | None:
    named = environ.get(OTEL_EXPORTER_OTLP_TRACES_PROTOCOL) or environ.get(OTEL_EXPORTER_OTLP_PROTOCOL)
    protocol = (named or "http/protobuf").strip().lower()
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

        return Http()
    _log.warning("OTLP protocol %s is not known, no spans are exported (grpc, http/protobuf)", protocol)
    return None


def _console(_: Mapping[str, str]) -> SpanExporter:
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    return ConsoleSpanExporter(out=sys.stdout)


_EXPORTERS: dict[str, Callable[[Mapping[str, str]], SpanExporter | None]] = {
    "otlp": _otlp,
    "console": _console,
    "none": lambda _: None,
}


def _accepted() -> str:
    return ", ".join(_EXPORTERS)


def _positive(environ: Mapping[str, str], name: str, default: int) -> int:
    told = environ.get(name, "").strip()
    if told.isdecimal() and int(told) > 0:
        return int(told)
    if told:
        _log.warning("%s=%s is no positive number, %d is used", name, told, default)
    return default
