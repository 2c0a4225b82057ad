"""What one ended request adds to the counts, series by series."""

from typing import Any

import pytest
from samples import STREAMED, streamed

from exporter import catalog, counting
from exporter.core.outcome import ErrorType, Outcome
from exporter.core.phases import Phase, Source
from exporter.core.tally import Labels, Tally
from exporter.core.timeline import Timeline, Usage

BASE = ("chat", "llama-3-8b", "vllm")
FINISHED = (Outcome.COMPLETED, Outcome.LENGTH)


def counted(timeline: Timeline) -> Tally:
    tally = Tally()
    counting.add(timeline, tally)
    return tally


def observed(timeline: Timeline) -> dict[tuple[str, Labels], float]:
    """The sum of each histogram series, after a check that one observation lies in its cell."""
    tally = counted(timeline)
    for (name, _), cells in tally.histograms.items():
        assert cells.counts == {catalog.grid(name).cell(cells.sum): 1}
    return {series: cells.sum for series, cells in tally.histograms.items()}


def test_a_streamed_request_adds_exactly_this() -> None:
    assert observed(STREAMED) == {
        (catalog.TTFT, BASE): 0.5,
        (catalog.TPOT, BASE): 0.03125,
        (catalog.LATENCY, (*BASE, "completed", "")): 4.5,
        (catalog.QUEUEING, (*BASE, "derived")): 0.125,
        (catalog.PREFILL, (*BASE, "reported")): 0.375,
        (catalog.DECODE, BASE): 4.0,
        (catalog.PREFILL_RATE, BASE): 256.0,
        (catalog.REQUEST_TOKENS, (*BASE, "input")): 96.0,
        (catalog.REQUEST_TOKENS, (*BASE, "output")): 129.0,
    }
    assert counted(STREAMED).counters == {
        (catalog.REQUESTS, (*BASE, "completed", "", "200", "true")): 1,
        (catalog.TOKENS, (*BASE, "input")): 96,
        (catalog.TOKENS, (*BASE, "output")): 129,
    }


def test_a_request_that_got_nowhere_adds_its_end_and_its_latency_only() -> None:
    lost = Timeline(STREAMED.identity, 100.0, 101.0, Outcome.FAILED, ErrorType.CONNECT)
    assert observed(lost) == {(catalog.LATENCY, (*BASE, "failed", "connect")): 1.0}
    assert counted(lost).counters == {(catalog.REQUESTS, (*BASE, "failed", "connect", "", "true")): 1}


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome not in FINISHED])
def test_a_bad_end_leaves_tpot_decode_and_request_tokens_out(outcome: Outcome) -> None:
    found = {name for name, _ in observed(streamed(outcome=outcome))}
    assert found == {catalog.TTFT, catalog.LATENCY, catalog.QUEUEING, catalog.PREFILL, catalog.PREFILL_RATE}


def test_output_tokens_are_set_right_at_the_end() -> None:
    assert counted(streamed(ticked=100)).counters[catalog.TOKENS, (*BASE, "output")] == 29


def test_tokens_all_ticked_already_add_nothing_at_the_end() -> None:
    counters = counted(streamed(ticked=129)).counters
    assert not {(catalog.TOKENS, (*BASE, "output")), (catalog.OVERCOUNT, ())} & counters.keys()


def test_an_overshoot_is_counted_apart_and_takes_nothing_back() -> None:
    counters = counted(streamed(ticked=131)).counters
    assert (catalog.TOKENS, (*BASE, "output")) not in counters
    assert counters[catalog.OVERCOUNT, ()] == 2


def test_a_ttft_told_while_the_stream_ran_is_not_told_again() -> None:
    assert (catalog.TTFT, BASE) not in observed(streamed(ttft_told=True))


def test_subsets_of_tokens_are_counters_of_their_own_and_leave_the_prefill_rate() -> None:
    cached = streamed(usage=Usage(input=96, output=129, cached_input=48, reasoning_output=100))
    counters = counted(cached).counters
    assert counters[catalog.CACHED_TOKENS, BASE] == 48
    assert counters[catalog.REASONING_TOKENS, BASE] == 100
    assert observed(cached)[catalog.PREFILL_RATE, BASE] == 128.0


@pytest.mark.parametrize(
    "changes",
    [
        {"prefill": Phase(0.375, Source.UPPER_BOUND)},
        {"prefill": Phase(0.0, Source.REPORTED)},
        {"prefill": None},
        {"usage": Usage(output=129)},
        {"usage": Usage(input=96, output=129, cached_input=96)},
    ],
)
def test_no_prefill_rate_where_a_part_of_it_is_unknown_or_nothing(changes: dict[str, Any]) -> None:
    assert (catalog.PREFILL_RATE, BASE) not in observed(streamed(**changes))


def test_reasoning_stalls_and_the_engines_own_queue_have_their_histograms() -> None:
    found = observed(streamed(first_answer=102.0, stalled=0.75, reported_queueing=0.0625))
    assert found[catalog.FIRST_ANSWER, BASE] == 2.0
    assert found[catalog.STALLED, BASE] == 0.75
    assert found[catalog.REPORTED_QUEUE, BASE] == 0.0625


def test_each_choice_has_a_tpot() -> None:
    cells = counted(streamed(tpots=(0.25, 0.5))).histograms[catalog.TPOT, BASE]
    assert (cells.count, cells.sum) == (2, 0.75)


def test_conflicts_and_estimates_are_counted() -> None:
    counters = counted(streamed(conflicts=("prefill_negative",), estimated=True)).counters
    assert counters[catalog.CONFLICTS, ("prefill_negative",)] == 1
    assert counters[catalog.ESTIMATED, ()] == 1


def test_header_labels_stand_between_base_and_own_labels() -> None:
    counters = counted(streamed("m", "blue", "eu")).counters
    assert (catalog.REQUESTS, ("chat", "m", "vllm", "blue", "eu", "completed", "", "200", "true")) in counters


def test_series_carry_as_many_values_as_their_metric_has_labels() -> None:
    tally = counted(streamed(first_answer=102.0, stalled=0.75, reported_queueing=0.0625, ticked=500))
    for name, labels in (*tally.counters, *tally.histograms):
        metric = catalog.BY_NAME[name]
        assert len(labels) == len(metric.labels) + (len(catalog.BASE_LABELS) if metric.base else 0)
