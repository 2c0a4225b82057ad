"""The exposition: valid in both formats, the same numbers in both, and exactly these bytes."""

import os
from math import inf
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Exemplar, Sample
from samples import STREAMED, WHO, streamed, who

from exporter import catalog
from exporter.catalog import Kind
from exporter.core.outcome import ErrorType, Outcome
from exporter.core.tally import Series, Tally
from exporter.core.timeline import Timeline
from exporter.sinks.prometheus import PrometheusSink
from exporter.sinks.prometheus.exemplars import Exemplars

GOLDEN = Path(__file__).parent / "golden"
WALL = 1_700_000_000.25
BASE = ("chat", "llama-3-8b", "vllm")
NASTY = 'quo"te\\back\nline % {brace} \u2028 é'
OUTPUT = ("gen_ai_token_type", "output")
Found = dict[tuple[str, frozenset[tuple[str, str]]], Sample]


def sink(*header_labels: str) -> PrometheusSink:
    """A sink without this process's own figures, and of a version that never changes."""
    return PrometheusSink(header_labels, registry=CollectorRegistry(), build=("1.2.3", "3.11.0"))


def itl(*gaps: float, labels: tuple[str, ...] = BASE) -> Tally:
    tally = Tally()
    tally.observe_all(catalog.ITL, labels, catalog.grid(catalog.ITL), gaps)
    return tally


def samples(text: bytes, *, openmetrics: bool) -> Found:
    families = (parse_openmetrics if openmetrics else parse_text)(text.decode())
    found: Found = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is written twice"
            found[key] = sample
    return found


def value(found: Found, name: str, *extra: tuple[str, str], base: tuple[str, ...] = BASE) -> float | None:
    sample = found.get((name, frozenset((*zip(catalog.BASE_LABELS, base, strict=True), *extra))))
    return None if sample is None else sample.value


def busy() -> PrometheusSink:
    """What the golden files show: two requests, one of a name that needs escaping, and a pulse."""
    made = sink("tenant")
    made.record(streamed(WHO.model, "blue", ttft_told=True, ticked=29, stalled=0.75, first_answer=101.0), WALL)
    made.record(
        Timeline(who(NASTY, labels=("",), sampled=False), 100.0, 100.5, Outcome.FAILED, ErrorType.CONNECT), WALL + 1
    )
    pulse = itl(0.03125, 0.03125, 20.0, labels=(*BASE, "blue"))
    pulse.observe(catalog.TTFT, (*BASE, "blue"), catalog.grid(catalog.TTFT), 0.5)
    pulse.inc(catalog.TOKENS, (*BASE, "blue", "output"), 29)
    pulse.inc(catalog.UNINSPECTED, ("encoded",))
    made.merge(pulse)
    return made


GAUGES: dict[Series, float] = {
    (catalog.TPS, (*BASE, "blue")): 31.5,
    (catalog.ACTIVE, (*BASE, "blue", "decode")): 2,
    (catalog.ENGINE_UP, ()): 1,
    (catalog.LAST_TOKEN, (*BASE, "blue")): WALL,
}


@pytest.mark.parametrize(("name", "openmetrics"), [("metrics.txt", False), ("metrics.openmetrics.txt", True)])
def test_the_whole_output_is_the_golden_one(name: str, openmetrics: bool) -> None:
    output = busy().render(GAUGES, openmetrics=openmetrics)
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_bytes(output)
    assert output.decode() == (GOLDEN / name).read_text(), "UPDATE_GOLDEN=1 accepts the change"


def test_both_formats_parse_and_say_the_same() -> None:
    made = busy()
    text, openmetrics = (samples(made.render(GAUGES, openmetrics=om), openmetrics=om) for om in (False, True))
    assert {key: sample.value for key, sample in text.items()} == {
        key: sample.value for key, sample in openmetrics.items()
    }
    assert any(dict(labels).get("gen_ai_request_model") == NASTY for _, labels in text)


def test_this_process_tells_about_itself_in_both_formats() -> None:
    made = PrometheusSink()
    for openmetrics in (False, True):
        names = {name for name, _ in samples(made.render({}, openmetrics=openmetrics), openmetrics=openmetrics)}
        assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_info"} <= names
        assert "python_gc_collections_total" in names
        assert "inference_exporter_build_info" in names
        assert not any(name.endswith("_created") for name in names)


def test_a_fresh_sink_shows_what_has_no_labels_as_zero_and_nothing_else() -> None:
    found = samples(sink().render({}, openmetrics=False), openmetrics=False)
    lonely = {m.name for m in catalog.METRICS if m.kind is Kind.COUNTER and not m.base and not m.labels}
    assert lonely
    build = "inference_exporter_build_info"
    assert {name for name, _ in found if not name.startswith(catalog.ADDED_LATENCY)} == {*lonely, build}
    assert all(sample.value == 0 for (name, _), sample in found.items() if name != build)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_counters_keep_their_total_and_add_up(openmetrics: bool) -> None:
    made = busy()
    made.merge(Tally({(catalog.OVERCOUNT, ()): 3}))
    output = made.render({}, openmetrics=openmetrics)
    family = "gen_ai_server_tokens" if openmetrics else "gen_ai_server_tokens_total"
    assert f"\n# TYPE {family} counter\n".encode() in output
    found = samples(output, openmetrics=openmetrics)
    assert value(found, catalog.TOKENS, ("tenant", "blue"), OUTPUT) == 129
    assert found[catalog.OVERCOUNT, frozenset()].value == 3


def test_openmetrics_ends_once_and_states_units_only_of_names_that_end_with_them() -> None:
    output = busy().render(GAUGES, openmetrics=True).decode()
    assert output.count("# EOF\n") == 1
    assert output.endswith("# EOF\n")
    assert "# UNIT gen_ai_server_time_to_first_token_seconds seconds\n" in output
    assert "# UNIT gen_ai_server_tokens tokens\n" in output
    assert "# UNIT gen_ai_server_output_tokens_per_second tokens_per_second\n" in output
    assert "# UNIT inference_exporter_spans_dropped" not in output
    assert "# UNIT" not in busy().render(GAUGES, openmetrics=False).decode()


def exemplars(made: PrometheusSink, name: str) -> dict[str, Exemplar]:
    found = samples(made.render({}, openmetrics=True), openmetrics=True)
    return {s.labels["le"]: s.exemplar for s in found.values() if s.name == f"{name}_bucket" and s.exemplar}


def test_exemplars_are_the_newest_sampled_trace_of_each_bucket() -> None:
    made = sink()
    for wall, trace, ttft, sampled in [
        (1.0, "a" * 32, 0.5, True),
        (2.0, "b" * 32, 0.45, True),
        (3.0, "c" * 32, 0.45, False),
        (4.0, "d" * 32, 7.0, True),
    ]:
        identity = who(trace_id=trace, sampled=sampled)
        made.record(replace(STREAMED, identity=identity, first_token=100 + ttft), WALL + wall)
    found = exemplars(made, catalog.TTFT)
    assert {le: exemplar.labels["trace_id"][0] for le, exemplar in found.items()} == {"0.5": "b", "7.5": "d"}
    assert found["0.5"].value == pytest.approx(0.45)
    assert float(found["0.5"].timestamp or 0) == WALL + 2.0


def test_a_ttft_told_by_a_pulse_gets_its_exemplar_at_the_end() -> None:
    assert exemplars(busy(), catalog.TTFT)["0.5"].labels == {"trace_id": WHO.trace_id}


def test_an_exemplar_above_all_edges_stands_at_infinity() -> None:
    made = sink()
    made.record(replace(STREAMED, end=100_000.0), WALL)
    assert list(exemplars(made, catalog.LATENCY)) == ["+Inf"]


def test_exemplars_are_not_in_classic_text() -> None:
    assert WHO.trace_id.encode() not in busy().render({}, openmetrics=False)


def test_exemplars_of_the_series_touched_longest_ago_are_given_up() -> None:
    kept = Exemplars(limit=2)
    for model in ("a", "b", "a", "c"):
        kept.keep((catalog.TTFT, (model,)), 0, ("0" * 32, 0.1, WALL))
    assert [labels for _, labels, _ in kept.rows()] == [("a",), ("c",)]
    assert kept.of((catalog.TTFT, ("b",))) is None


edges = st.sampled_from(catalog.grid(catalog.ITL).classic)


@given(st.lists(st.lists(st.floats(0, 20) | edges, max_size=8), max_size=3))
@settings(max_examples=50)
def test_histograms_are_those_of_prometheus_client(pulses: list[list[float]]) -> None:
    registry, made = CollectorRegistry(), sink()
    buckets = catalog.BY_NAME[catalog.ITL].buckets
    theirs = Histogram(catalog.ITL, "ITL", catalog.BASE_LABELS, registry=registry, buckets=buckets).labels(*BASE)
    made.merge(itl())
    for gaps in pulses:
        made.merge(itl(*gaps))
        for gap in gaps:
            theirs.observe(gap)
    found = samples(made.render({}, openmetrics=False), openmetrics=False)
    (family,) = registry.collect()
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            ours = found[sample.name, frozenset(sample.labels.items())]
            assert ours.value == pytest.approx(sample.value)


def test_integers_are_written_as_integers_and_sums_in_full() -> None:
    made = sink()
    made.merge(itl(0.1, 0.2, inf))
    lines = made.render({}, openmetrics=False).decode().splitlines()
    labels = ",".join(f'{name}="{text}"' for name, text in zip(catalog.BASE_LABELS, BASE, strict=True))
    assert f'{catalog.ITL}_bucket{{{labels},le="10.0"}} 2' in lines
    assert f'{catalog.ITL}_bucket{{{labels},le="+Inf"}} 3' in lines
    assert f"{catalog.ITL}_count{{{labels}}} 3" in lines
    assert f"{catalog.ITL}_sum{{{labels}}} inf" in lines


def test_a_dump_brings_back_the_same_exposition_through_messagepack() -> None:
    made, again = busy(), sink("tenant")
    again.load(msgspec.msgpack.decode(msgspec.msgpack.encode(made.dump())))
    assert again.dump() == made.dump()
    for openmetrics in (False, True):
        assert again.render(GAUGES, openmetrics=openmetrics) == made.render(GAUGES, openmetrics=openmetrics)
    for each in (made, again):
        each.record(streamed(WHO.model, "blue"), WALL + 5)
    assert again.render({}, openmetrics=True) == made.render({}, openmetrics=True)


@pytest.mark.parametrize("state", [None, [], [[], []], [[["name", [1], 1.0]], [], []]])
def test_what_is_not_a_dump_is_refused(state: object) -> None:
    with pytest.raises(ValueError, match=r"Expected|at least"):
        sink().load(state)


@pytest.mark.parametrize("labels", [("le",), ("outcome",), ("gen_ai_request_model",), ("tenant", "tenant")])
def test_a_header_label_that_a_metric_has_already_is_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"label '{labels[-1]}' of a header: the name is taken"):
        sink(*labels)
