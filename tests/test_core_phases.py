"""Queueing and prefill: always summing to the TTFT, with provenance, and never made up from an impossible report."""

from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.phases import Hints, Phase, Source, Split, split, split_whole

seconds = st.integers(0, 2**20).map(lambda ticks: ticks / 1024)
figures = st.none() | st.integers(-(2**20), 2**21).map(lambda ticks: ticks / 1024) | st.just(nan)
hints = st.builds(Hints, figures, figures, figures, st.sampled_from([0.0, 0.001, 1.0]))


@st.composite
def waits(draw: st.DrawFn) -> tuple[float, float]:
    ttft = draw(seconds)
    return ttft, min(draw(seconds), ttft)


@given(waits(), st.none() | hints, st.booleans())
def test_phases_sum_to_ttft_whatever_is_reported(wait: tuple[float, float], told: Hints | None, sole: bool) -> None:
    found = split(*wait, told, sole_queue=sole)
    assert found.queueing is not None
    assert found.prefill is not None
    assert found.queueing.seconds + found.prefill.seconds == pytest.approx(wait[0], abs=1e-12)
    assert min(found.queueing.seconds, found.prefill.seconds) >= 0


@given(waits(), hints)
def test_a_reported_phase_is_one_that_was_reported(wait: tuple[float, float], told: Hints) -> None:
    found = split(*wait, told)
    if found.prefill and found.prefill.source is Source.REPORTED:
        assert found.prefill.seconds in (told.prefill, wait[0])
        assert abs(found.prefill.seconds - (told.prefill or 0)) <= told.resolution
    if told.prefill is None and told.queueing is None:
        assert found.queueing == Phase(wait[1], Source.LOWER_BOUND)
        assert found.conflicts == ()


@given(seconds, hints)
def test_without_a_first_token_only_possible_reports_become_phases(latency: float, told: Hints) -> None:
    found = split_whole(latency, told)
    assert (found.queueing is None) == (found.prefill is None)
    if found.queueing and found.prefill and told.decode is not None:
        assert found.queueing.seconds >= 0
        total = found.queueing.seconds + found.prefill.seconds + told.decode
        assert total == pytest.approx(latency, abs=told.resolution + 1e-9)


def test_reported_prefill_makes_queueing_the_rest() -> None:
    assert split(1.0, 0.25, Hints(prefill=0.5)) == Split(Phase(0.5, Source.DERIVED), Phase(0.5, Source.REPORTED))


def test_reported_queue_makes_prefill_the_rest_and_adds_to_our_own() -> None:
    found = split(1.0, 0.25, Hints(queueing=0.5))
    assert found == Split(Phase(0.75, Source.REPORTED), Phase(0.25, Source.DERIVED), (), 0.5)


def test_reported_prefill_wins_over_a_reported_queue_which_is_kept_beside() -> None:
    found = split(1.0, 0.0, Hints(queueing=0.125, prefill=0.5))
    assert found.queueing == Phase(0.5, Source.DERIVED)
    assert found.reported_queueing == 0.125


def test_nothing_reported_leaves_bounds() -> None:
    assert split(1.0, 0.25) == Split(Phase(0.25, Source.LOWER_BOUND), Phase(0.75, Source.UPPER_BOUND))


def test_a_sole_queue_observes_both_and_still_names_impossible_reports() -> None:
    found = split(1.0, 0.25, Hints(queueing=-1.0), sole_queue=True)
    assert found.queueing == Phase(0.25, Source.OBSERVED)
    assert found.prefill == Phase(0.75, Source.OBSERVED)
    assert found.conflicts == ("queueing_negative",)
    assert found.reported_queueing is None


@pytest.mark.parametrize(
    ("told", "conflicts"),
    [
        (Hints(prefill=-0.001), ("prefill_negative",)),
        (Hints(prefill=0.752), ("prefill_exceeds_ttft",)),
        (Hints(prefill=nan), ("prefill_exceeds_ttft",)),
        (Hints(queueing=-0.001), ("queueing_negative",)),
        (Hints(queueing=0.752), ("queueing_exceeds_ttft",)),
        (Hints(queueing=-1.0, prefill=-1.0), ("queueing_negative", "prefill_negative")),
    ],
)
def test_impossible_reports_are_dropped_and_named(told: Hints, conflicts: tuple[str, ...]) -> None:
    found = split(1.0, 0.25, told)
    assert found == Split(Phase(0.25, Source.LOWER_BOUND), Phase(0.75, Source.UPPER_BOUND), conflicts)


def test_a_report_too_long_by_its_own_resolution_is_no_contradiction() -> None:
    assert split(1.0, 0.0, Hints(prefill=1.0005)).prefill == Phase(1.0, Source.REPORTED)
    assert split(1.0, 0.0, Hints(prefill=1.0015)).conflicts == ("prefill_exceeds_ttft",)


def test_an_impossible_queue_figure_is_dropped_although_prefill_decides() -> None:
    found = split(1.0, 0.0, Hints(queueing=7.0, prefill=0.5))
    assert found.prefill == Phase(0.5, Source.REPORTED)
    assert (found.reported_queueing, found.conflicts) == (None, ("queueing_exceeds_ttft",))


def test_whole_answer_is_split_by_reported_prefill_and_decode() -> None:
    found = split_whole(4.0, Hints(prefill=0.5, decode=3.0))
    assert found == Split(Phase(0.5, Source.DERIVED), Phase(0.5, Source.REPORTED))


@pytest.mark.parametrize("told", [None, Hints(), Hints(prefill=0.5), Hints(decode=3.0)])
def test_whole_answer_without_both_reports_has_no_phases(told: Hints | None) -> None:
    assert split_whole(4.0, told) == Split()


@pytest.mark.parametrize(
    ("told", "conflicts"),
    [
        (Hints(prefill=-0.5, decode=3.0), ("prefill_negative",)),
        (Hints(prefill=0.5, decode=-3.0), ("decode_negative",)),
        (Hints(prefill=0.5, decode=nan), ("decode_exceeds_latency",)),
        (Hints(prefill=4.5, decode=0.5), ("prefill_exceeds_latency",)),
        (Hints(prefill=2.5, decode=3.0), ("phases_exceed_latency",)),
    ],
)
def test_impossible_reports_about_a_whole_answer_are_dropped_and_named(told: Hints, conflicts: tuple[str, ...]) -> None:
    assert split_whole(4.0, told) == Split(conflicts=conflicts)


def test_whole_answer_shorter_than_its_parts_by_the_resolution_did_not_wait() -> None:
    assert split_whole(4.0, Hints(prefill=1.0005, decode=3.0)).queueing == Phase(0.0, Source.DERIVED)
