"""The catalogue keeps Prometheus' rules of naming, and its reference page says everything that it says."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import catalog
from exporter.catalog import BASE_LABELS, METRICS, Kind, Metric
from exporter.core.outcome import ErrorType, Outcome
from exporter.core.phases import Source

GENERATE = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "generate.py"))

every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


@every_metric
def test_names_are_prometheus_names(metric: Metric) -> None:
    assert re.fullmatch(r"(gen_ai_server|inference_(engine|slo|exporter))_[a-z][a-z_]*[a-z]", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert not metric.name.endswith(("_count", "_sum", "_bucket", "_created"))
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels)
    assert not {"le", "quantile", "job", "instance", *BASE_LABELS} & set(metric.labels)


@every_metric
def test_units_end_the_names_of_what_is_measured(metric: Metric) -> None:
    if metric.kind is Kind.HISTOGRAM or metric.unit == "seconds":
        assert metric.name.endswith("_" + metric.unit.replace(" ", "_"))


@every_metric
def test_only_histograms_have_buckets_and_they_rise(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))


@every_metric
def test_help_is_a_sentence_and_durations_say_from_and_to(metric: Metric) -> None:
    assert metric.help.endswith(".")
    assert "\n" not in metric.help
    if metric.kind is Kind.HISTOGRAM and metric.unit == "seconds" and metric.name != catalog.REPORTED_QUEUE:
        assert re.search(r"\bfrom\b.*\bto\b", metric.help)


def test_names_are_unique() -> None:
    assert len(catalog.BY_NAME) == len(METRICS)


def test_the_page_has_every_metric_outcome_reason_and_source() -> None:
    page = GENERATE["metrics_markdown"]()
    for metric in METRICS:
        assert f"| `{metric.name}` | {metric.kind} |" in page
        assert metric.help in page
    for word in (*Outcome, *filter(None, ErrorType), *Source):
        assert f"`{word}`" in page


def test_a_stale_page_is_shown_as_a_diff_and_a_fresh_one_as_nothing(tmp_path: Path) -> None:
    stale: Callable[[Path, dict[str, Callable[[], str]]], list[str]] = GENERATE["stale"]
    pages: dict[str, Callable[[], str]] = {"page.md": lambda: "new\n"}
    (tmp_path / "page.md").write_text(f"{GENERATE['NOTE']}old\n")
    assert [line for line in stale(tmp_path, pages) if line[:1] in "+-"][2:] == ["-old\n", "+new\n"]
    (tmp_path / "page.md").write_text(f"{GENERATE['NOTE']}new\n")
    assert list(stale(tmp_path, pages)) == []
