"""Every metric as data: name, kind, unit, what it is measured from and to, labels, buckets.

The exposition, the dashboards, the rules and docs/metrics.md read this table and nothing else knows a metric's name
or meaning. Names follow the OpenTelemetry GenAI conventions where one exists, in Prometheus spelling.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from exporter.core.grid import Grid

BASE_LABELS = ("gen_ai_operation_name", "gen_ai_request_model", "gen_ai_provider_name")
MODEL = BASE_LABELS.index("gen_ai_request_model")


class Kind(StrEnum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. ``base`` metrics carry BASE_LABELS (and configured header labels) before ``labels``."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    base: bool = True
    buckets: tuple[float, ...] = ()
    span: tuple[int, int] = (-20, 14)  # native edges from 2**low to 2**high, in the metric's unit


_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
_LONG_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0,
                 180.0, 300.0, 600.0, 1200.0, 3600.0)  # fmt: skip
_TOKEN_SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05,
    0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_TOKENS = (1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0,
           131072.0, 262144.0, 1048576.0)  # fmt: skip
_RATES = (10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 25000.0, 50000.0, 100000.0)
_ADDED = (0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0)

TTFT = "gen_ai_server_time_to_first_token_seconds"
TPOT = "gen_ai_server_time_per_output_token_seconds"
ITL = "gen_ai_server_inter_token_latency_seconds"
LATENCY = "gen_ai_server_request_duration_seconds"
QUEUEING = "gen_ai_server_time_in_queue_seconds"
PREFILL = "gen_ai_server_time_in_prefill_seconds"
DECODE = "gen_ai_server_time_in_decode_seconds"
FIRST_ANSWER = "gen_ai_server_time_to_first_answer_token_seconds"
PREFILL_RATE = "gen_ai_server_prefill_tokens_per_second"
STALLED = "gen_ai_server_client_stalled_seconds"
REQUEST_TOKENS = "gen_ai_server_request_tokens"
TPS = "gen_ai_server_output_tokens_per_second"
ACTIVE = "gen_ai_server_active_requests"
OLDEST = "gen_ai_server_oldest_request_age_seconds"
LAST_TOKEN = "gen_ai_server_last_token_timestamp_seconds"
TOKENS = "gen_ai_server_tokens_total"
CACHED_TOKENS = "gen_ai_server_cached_input_tokens_total"
REASONING_TOKENS = "gen_ai_server_reasoning_output_tokens_total"
REQUESTS = "gen_ai_server_requests_total"
REPORTED_QUEUE = "inference_engine_reported_queue_seconds"
ENGINE_UP = "inference_engine_up"
BUILD = "inference_exporter_build_info"
ADDED_LATENCY = "inference_exporter_added_latency_seconds"
DEGRADED = "inference_exporter_records_degraded_total"
SPANS_DROPPED = "inference_exporter_spans_dropped_total"
CONFLICTS = "inference_exporter_hint_conflicts_total"
ESTIMATED = "inference_exporter_estimated_token_counts_total"
OVERCOUNT = "inference_exporter_token_overcount_total"
FOLDED = "inference_exporter_folded_label_values_total"
UNINSPECTED = "inference_exporter_uninspected_bodies_total"
REPLAYS = "inference_exporter_upstream_replays_total"
RESTARTS = "inference_exporter_process_restarts_total"
REFUSED = "inference_exporter_refused_requests_total"
CHANNEL_ERRORS = "inference_exporter_channel_errors_total"


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str, unit: str = "seconds") -> Metric:
    span = (-20, 14) if unit == "seconds" else (-4, 24)
    return Metric(name, Kind.HISTOGRAM, unit, text, labels, buckets=buckets, span=span)


def _own(name: str, kind: Kind, unit: str, text: str, *labels: str) -> Metric:
    return Metric(name, kind, unit, text, labels, base=False)


METRICS: tuple[Metric, ...] = (
    _histogram(
        TTFT,
        "Time to first token (TTFT) of streamed requests: from the last byte of the request received "
        "to the first output token. TTFT = queueing + prefill.",
        _SECONDS,
    ),
    _histogram(
        TPOT,
        "Time per output token (TPOT) of streamed requests that finished: from the first to the last output token, "
        "divided by the tokens after the first.",
        _TOKEN_SECONDS,
    ),
    _histogram(
        ITL,
        "Inter-token latency (ITL): from one token-bearing event to the next, divided by the tokens in it, "
        "once for each token, while the stream runs.",
        _TOKEN_SECONDS,
    ),
    _histogram(
        LATENCY,
        "Latency of all requests: from the last byte of the request received to the last byte of the answer.",
        _LONG_SECONDS,
        "outcome",
        "error_type",
    ),
    _histogram(
        QUEUEING,
        "Queueing: from the last byte of the request received to the beginning of work on the prompt. "
        "A source of lower_bound saw only the sidecar's own queue.",
        _SECONDS,
        "source",
    ),
    _histogram(
        PREFILL,
        "Prefill: from the beginning of work on the prompt to the first output token. "
        "A source of upper_bound still has the engine's own queue in it.",
        _SECONDS,
        "source",
    ),
    _histogram(
        DECODE,
        "Decode of requests that finished: from the first to the last output token.",
        _LONG_SECONDS,
    ),
    _histogram(
        FIRST_ANSWER,
        "Time to the first token that is not reasoning: from the last byte of the request received "
        "to that token; only where reasoning came first.",
        _LONG_SECONDS,
    ),
    _histogram(
        PREFILL_RATE,
        "Prefill speed: input tokens that were not cached, divided by prefill; only where prefill is known.",
        _RATES,
        unit="tokens per second",
    ),
    _histogram(
        STALLED,
        "Client stalls: from the moment reading from the engine was stopped because the client was slow "
        "to the moment it went on, summed over the request; left out of ITL and TPOT.",
        _SECONDS,
    ),
    _histogram(
        REQUEST_TOKENS,
        "Tokens of each request that was answered.",
        _TOKENS,
        "gen_ai_token_type",
        unit="tokens",
    ),
    Metric(TPS, Kind.GAUGE, "tokens per second",
           "Tokens per second (TPS): streamed output tokens of all live requests over the last 10 seconds."),
    Metric(ACTIVE, Kind.GAUGE, "requests",
           "Live requests by phase: queueing in the sidecar, waiting at the engine without a token, "
           "prefill where the engine tells it live, decode.", ("phase",)),
    Metric(OLDEST, Kind.GAUGE, "seconds", "Age of the oldest live request: from its arrival to now.", ("phase",)),
    Metric(LAST_TOKEN, Kind.GAUGE, "seconds", "When the last output token of any request was read, in Unix time."),
    Metric(TOKENS, Kind.COUNTER, "tokens",
           "Tokens, counted while streams run and set right by the engine's own count at the end.",
           ("gen_ai_token_type",)),
    Metric(CACHED_TOKENS, Kind.COUNTER, "tokens", "Input tokens that the engine took from its prefix cache."),
    Metric(REASONING_TOKENS, Kind.COUNTER, "tokens", "Output tokens that were reasoning."),
    Metric(REQUESTS, Kind.COUNTER, "requests", "Requests that ended, by how.",
           ("outcome", "error_type", "http_response_status_code", "stream")),
    _histogram(
        REPORTED_QUEUE,
        "The engine's own figure for a request's time in its queue, as reported.",
        _SECONDS,
    ),
    _own(ENGINE_UP, Kind.GAUGE, "", "Whether a TCP connection to the engine succeeded in the last 10 seconds."),
    _own(BUILD, Kind.GAUGE, "", "Always 1; its labels say what is running.", "version", "python"),
    Metric(ADDED_LATENCY, Kind.HISTOGRAM, "seconds",
           "Latency that the relay added to the first byte of an answer: from the last byte of the request received "
           "to its first byte written to the engine, plus from the first byte of the answer read to it written.",
           base=False, buckets=_ADDED),
    _own(DEGRADED, Kind.COUNTER, "records",
         "Requests whose spans and exemplars were given up because the observer was away; they were counted."),
    _own(SPANS_DROPPED, Kind.COUNTER, "spans", "Spans that could not be exported."),
    _own(CONFLICTS, Kind.COUNTER, "reports", "Impossible figures reported by the engine, dropped.", "reason"),
    _own(ESTIMATED, Kind.COUNTER, "requests",
         "Streamed requests whose output tokens were counted by events because the engine told no usage."),
    _own(OVERCOUNT, Kind.COUNTER, "tokens", "Output tokens counted while streaming beyond the engine's usage."),
    _own(FOLDED, Kind.COUNTER, "values", "Label values folded into other because the limit was reached.", "label"),
    _own(UNINSPECTED, Kind.COUNTER, "bodies", "Bodies relayed without being understood.", "reason"),
    _own(REPLAYS, Kind.COUNTER, "requests",
         "Requests sent again on a fresh connection because a reused one closed before any answer."),
    _own(RESTARTS, Kind.COUNTER, "restarts", "Child processes that died and were started again.", "process"),
    _own(REFUSED, Kind.COUNTER, "requests", "Requests refused by the relay itself, before the engine.", "reason"),
    _own(CHANNEL_ERRORS, Kind.COUNTER, "errors",
         "Faults on a relay's channel to the observer: what came was garbage, or not in order, or records were missing "
         "(lost).", "reason"),
)  # fmt: skip

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


@cache
def grid(name: str) -> Grid:
    """The cells of a histogram."""
    metric = BY_NAME[name]
    return Grid(metric.buckets, *metric.span)
