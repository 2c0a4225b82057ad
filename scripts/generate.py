#!/usr/bin/env python3
"""Writes the reference pages under docs/ from the tables in the code; --check only says whether they are up to date."""

# ruff: noqa: E501 - rows of Markdown tables

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client.utils import floatToGoString

from exporter import catalog
from exporter.catalog import Kind, Metric
from exporter.config import reference_markdown
from exporter.core.outcome import ErrorType, Outcome
from exporter.core.phases import Source

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written by scripts/generate.py from the code; change it there. -->\n"

DEFINITIONS = """\
# Metrics

Durations are seconds on a monotonic clock. A moment is when the exporter **read** the bytes. What is not known is left
out, never counted as 0. `/metrics` answers with classic text, or with OpenMetrics and exemplars (the trace ids of sampled
requests) where the scraper asks for it.

## The numbers

| name | from | to | known |
|---|---|---|---|
| arrival | | last byte of the request received | always |
| queueing | arrival | work on the prompt begins | see provenance |
| prefill | work on the prompt begins | first output token | see provenance |
| TTFT | arrival | first output token; queueing + prefill | streamed, at least one token |
| decode | first output token | last output token | streamed, at least one token |
| TPOT | first output token | last output token, over the tokens after the first event | streamed, two tokens or more |
| ITL | one token-bearing event | the next, over the tokens in it, once for each token | streamed, two events or more |
| latency | arrival | last byte of the answer | always |
| TPS | | output tokens of all live streams in a sliding window of 10 s, per second | always |

- A token is an output token that the model made, counted by the engine's own `usage` where it is told, else by
  token-bearing events, and then also in `inference_exporter_estimated_token_counts_total`. Role chunks, pings and progress are no tokens.
- The first token is the first content, reasoning, tool-call, refusal, audio or function-call delta that is not empty.
- TTFT, queueing and prefill count every request that got there, whatever became of it. ITL counts every gap of every
  request; at a bad end the wait for the token that never came counts too. TPOT, decode and request tokens count requests
  that ended `completed` or `length`. Latency counts all, by outcome.
- With several choices the TTFT is that of the first of them, decode goes from the first token to the last of all, and TPOT
  and ITL are taken for each choice whose token counts are known.
- A gap in which reading was stopped because the client was slow is left out of ITL and TPOT and kept in
  `gen_ai_server_client_stalled_seconds`.
- A figure reported by the engine that cannot be (negative, or larger than observed by more than its resolution) is
  dropped and counted in `inference_exporter_hint_conflicts_total`, never made to fit.
"""

PROVENANCE = """\
## Provenance of queueing and prefill

The label `source` of both histograms. Use only `observed`, `reported` and `derived` in dashboards and alerts: the other
two say what could be seen, not what was. Where the engine reports prefill, queueing is what TTFT leaves of it, not the
engine's own queue figure, which misses real waiting; that figure is kept beside it in
`inference_engine_reported_queue_seconds`.
"""

LABELS = """\
## Labels

Every `gen_ai_*` metric carries `gen_ai_operation_name` (`chat`, `text_completion`, `responses`, `messages`, `embeddings`,
`rerank`, `score`, `transcription`, `other`), `gen_ai_request_model`, `gen_ai_provider_name` (the engine) and the labels of
`--label-header`.

Model names come from clients, so they are admitted: the operator's (`--models`), those the engine lists, and those that were
answered with a 2xx, at most 64 in all; more are `other`. A name that is none of these, and a request without one, is
`unknown`. Values of header labels have 64 places each, then `other`. What was folded is counted in
`inference_exporter_folded_label_values_total`.
"""

DEVIATIONS = """\
## Where this differs from the OpenTelemetry GenAI conventions

| metric | the convention (development stability) | here |
|---|---|---|
| `gen_ai_server_time_to_first_token_seconds` | successful responses only | every streamed request that had a token: leaving out those that then failed hides the slow ones |
| `gen_ai_server_time_per_output_token_seconds` | successful responses only | `completed` and `length`, for each choice, without gaps that a slow client made |
| `gen_ai_server_request_duration_seconds` | `error.type` | `error_type` from the closed list below, and `outcome` beside it |
| all histograms | advised buckets end at 10 s (TTFT), 2.5 s (TPOT), 81.92 s (duration) | the buckets below, wider and finer |
| `gen_ai_provider_name` | a vendor's name | the engine's name, for example `vllm`: the list has none for self-hosted engines |
| `gen_ai_operation_name` | `chat`, `text_completion`, `embeddings`, ... | these, and `responses`, `messages`, `rerank`, `score`, `transcription`, `other` |
| `gen_ai_server_request_tokens`, `gen_ai_server_tokens_total` | `gen_ai.client.token.usage` on the client's side | the server's side, as a histogram for each request and as a counter that moves while streams run |
| queueing, prefill, decode, ITL, stalls, TPS | none | named alike, under `gen_ai_server_` |

Dots become underscores and the unit becomes the end of the name, as Prometheus spells OpenTelemetry's names.
"""

OUTCOMES: dict[Outcome, tuple[str, str, str]] = {
    Outcome.COMPLETED: ("the model stopped by itself: stop, tool calls, content filter", "counts", "good"),
    Outcome.LENGTH: ("the token limit was reached", "counts", "good"),
    Outcome.CANCELLED: ("the client left", "bad if the threshold had passed by then, else excluded", "excluded"),
    Outcome.REJECTED: ("429 or 503 before work, or the exporter's own queue was full or too slow", "bad (TTFT)", "bad"),
    Outcome.TIMED_OUT: ("the exporter's timeouts, 408, 504", "bad", "bad"),
    Outcome.FAILED: ("5xx, reset, error event, abort, an end without a finish reason, a relay that died", "bad", "bad"),
    Outcome.INVALID: ("any other 4xx: the client's fault", "excluded", "excluded"),
}
SOURCES: dict[Source, str] = {
    Source.OBSERVED: "both ends were seen",
    Source.REPORTED: "the engine's own figure for this request",
    Source.DERIVED: "TTFT minus the other phase, which was reported",
    Source.LOWER_BOUND: "queueing: only the exporter's own queue was seen",
    Source.UPPER_BOUND: "prefill: dispatch to first token, any wait inside the engine still in it",
}
GROUPS = {
    "gen_ai_": "Requests and tokens",
    "inference_engine_": "The engine",
    "inference_slo_": "Objectives",
    "inference_exporter_": "The exporter itself",
}


def metrics_markdown() -> str:
    """The page docs/metrics.md."""
    parts: tuple[Iterable[str], ...] = ([DEFINITIONS], _provenance(), [LABELS], _outcomes(), _families(), _buckets())
    return "\n".join([*(line for part in parts for line in part), DEVIATIONS])


def _provenance() -> Iterator[str]:
    yield PROVENANCE
    yield from _table(("source", "meaning"), ((f"`{source}`", SOURCES[source]) for source in Source))


def _outcomes() -> Iterator[str]:
    yield "## Outcomes\n\nEvery request ends in exactly one.\n"
    header = ("outcome", "when", "in an objective on TTFT, TPOT or latency", "in one on availability")
    yield from _table(header, ((f"`{outcome}`", *OUTCOMES[outcome]) for outcome in Outcome))
    reasons = ", ".join(f"`{reason}`" for reason in ErrorType if reason)
    yield f"`error_type` is empty, or one of {reasons}.\n"


def _families() -> Iterator[str]:
    for prefix, title in GROUPS.items():
        metrics = [metric for metric in catalog.METRICS if metric.name.startswith(prefix)]
        if metrics:
            yield f"## {title}\n"
            yield from _table(("metric", "kind", "unit", "labels", "what it is"), map(_row, metrics))


def _row(metric: Metric) -> tuple[str, ...]:
    own = [f"`{label}`" for label in metric.labels]
    labels = ", ".join(["the base labels", *own] if metric.base else own)
    return f"`{metric.name}`", metric.kind.value, metric.unit, labels, metric.help


def _buckets() -> Iterator[str]:
    yield "## Buckets\n\nUpper edges of the classic buckets, in the metric's unit; `+Inf` follows.\n"
    found: dict[tuple[float, ...], list[str]] = {}
    for metric in catalog.METRICS:
        if metric.kind is Kind.HISTOGRAM:
            found.setdefault(catalog.grid(metric.name).classic, []).append(f"`{metric.name}`")
    rows = ((", ".join(names), " ".join(map(floatToGoString, edges))) for edges, names in found.items())
    yield from _table(("metrics", "edges"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
    yield ""


PAGES: dict[str, Callable[[], str]] = {
    "docs/metrics.md": metrics_markdown,
    "docs/configuration.md": reference_markdown,
}


def stale(root: Path, pages: dict[str, Callable[[], str]]) -> Iterator[str]:
    """What writing the pages would change, as unified diffs."""
    for name, page in pages.items():
        path = root / name
        before = path.read_text() if path.exists() else ""
        after = NOTE + page()
        yield from difflib.unified_diff(before.splitlines(True), after.splitlines(True), name, f"{name} (generated)")  # noqa: FBT003 - keepends


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail with a diff where a page is stale")
    if parser.parse_args().check:
        differences = "".join(stale(ROOT, PAGES))
        print(differences, end="")
        return 1 if differences else 0
    for name, page in PAGES.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(NOTE + page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
