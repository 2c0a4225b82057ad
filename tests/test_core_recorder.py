"""One request from arrival to end: every number from what was seen, and nothing where nothing was seen."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import WHO

from exporter.core.outcome import ErrorType, Outcome
from exporter.core.phases import Hints, Phase, Source
from exporter.core.recorder import LivePhase, Recorder
from exporter.core.timeline import Timeline, Usage

FINISHED = (Outcome.COMPLETED, Outcome.LENGTH)
BAD = [outcome for outcome in Outcome if outcome not in FINISHED]

ticks = st.integers(0, 4096).map(lambda count: count / 1024)  # exact in binary, so sums are too


@dataclass(frozen=True)
class Event:
    """A token-bearing event ``after`` seconds after the last; before it reading stood still for ``stall`` seconds."""

    after: float
    count: int | None = 1
    choice: int = 0
    stall: float = 0.0


counted = st.builds(Event, ticks, st.integers(1, 5))
uncounted = st.builds(Event, ticks, st.none())
of_choices = st.builds(Event, ticks, st.integers(1, 5), st.integers(0, 2))
stalling = st.builds(Event, ticks, st.integers(1, 5), stall=st.sampled_from([0.0, 0.0, 2.5]))


def replay(events: list[Event], *, choices: int = 1, queued: float = 0.25) -> tuple[Recorder, list[float], float]:
    """A recorder that saw these events, its gaps, and the moment of the last."""
    gaps: list[float] = []
    recorder = Recorder(WHO, 100.0, gaps, choices=choices)
    at = 100.0 + queued
    recorder.dispatched(at)
    for event in events:
        if event.stall:
            recorder.stalled(at, at + event.stall)
        at += event.stall + event.after
        recorder.token(at, event.choice, event.count)
    return recorder, gaps, at


def finished(recorder: Recorder, at: float, outcome: Outcome = Outcome.COMPLETED, **told: object) -> Timeline:
    timeline = recorder.finish(at, outcome, **told)  # type: ignore[arg-type]  # the keywords' own types
    assert timeline is not None
    return timeline


def total(events: list[Event]) -> int:
    return sum(event.count or 1 for event in events)


@given(st.lists(counted | uncounted), st.sampled_from(Outcome), ticks)
def test_phases_are_contiguous_and_nothing_is_invented(events: list[Event], outcome: Outcome, rest: float) -> None:
    recorder, _, at = replay(events)
    timeline = finished(recorder, at + rest, outcome)
    assert timeline.latency == at + rest - 100.0
    if not events:
        assert (timeline.ttft, timeline.decode, timeline.queueing, timeline.prefill) == (None,) * 4
        assert (timeline.tpots, timeline.usage.output, timeline.time_to_first_answer) == ((), None, None)
        return
    assert timeline.ttft == 0.25 + events[0].after
    assert timeline.queueing == Phase(0.25, Source.LOWER_BOUND)
    assert timeline.prefill == Phase(events[0].after, Source.UPPER_BOUND)
    assert timeline.decode == sum(event.after for event in events[1:])
    assert timeline.ttft + timeline.decode + rest == timeline.latency
    assert timeline.events == len(events)
    if len(events) == 1:
        assert timeline.tpots == ()


@given(st.lists(counted, min_size=1), st.sampled_from(FINISHED))
def test_gaps_sum_to_decode_and_their_mean_is_tpot(events: list[Event], outcome: Outcome) -> None:
    recorder, gaps, at = replay(events)
    timeline = finished(recorder, at + 1.0, outcome, usage=Usage(output=total(events)))
    assert sum(gaps) == pytest.approx(timeline.decode, abs=1e-9)
    assert len(gaps) == total(events) - (events[0].count or 1)
    assert len(timeline.tpots) == (1 if gaps else 0)
    if gaps:
        assert timeline.tpot == pytest.approx(sum(gaps) / len(gaps), abs=1e-9)


@given(st.lists(stalling, min_size=1))
def test_stalled_gaps_are_in_neither_itl_nor_tpot(events: list[Event]) -> None:
    recorder, gaps, at = replay(events)
    timeline = finished(recorder, at, usage=Usage(output=total(events)))
    skipped = sum(event.stall + event.after for event in events[1:] if event.stall)
    assert timeline.stalled == sum(event.stall for event in events)
    assert timeline.decode is not None
    assert sum(gaps) == pytest.approx(timeline.decode - skipped, abs=1e-9)
    if gaps:
        assert timeline.tpot == pytest.approx(sum(gaps) / len(gaps), abs=1e-9)


@given(st.lists(of_choices, min_size=1))
def test_choices_have_their_own_clocks_and_the_request_one_ttft(events: list[Event]) -> None:
    recorder, gaps, at = replay(events, choices=3)
    timeline = finished(recorder, at, usage=Usage(output=total(events)))
    assert timeline.ttft == 0.25 + events[0].after
    assert timeline.decode == sum(event.after for event in events[1:])
    clocks = recorder.choices.values()
    assert sum(gaps) == pytest.approx(sum(clock.last - clock.first for clock in clocks), abs=1e-9)
    assert len(gaps) == sum(clock.counted - clock.first_count for clock in clocks)
    assert len(timeline.tpots) == sum(clock.counted > clock.first_count for clock in clocks)


def test_choices_without_counts_have_no_gaps_and_no_tpot() -> None:
    recorder, gaps, at = replay([Event(1.0, None, 0), Event(0.5, None, 1), Event(0.5, None, 0)], choices=2)
    timeline = finished(recorder, at, usage=Usage(output=50))
    assert gaps == []
    assert timeline.tpots == ()
    assert timeline.tpot is None


def test_tpot_takes_the_engines_count_where_there_is_one_choice() -> None:
    recorder, gaps, at = replay([Event(1.0, None), Event(1.0, None), Event(1.0, None)])
    timeline = finished(recorder, at, usage=Usage(output=9))
    assert timeline.tpots == (0.25,)
    assert gaps == [1.0, 1.0]


def test_an_event_of_several_tokens_is_as_many_gaps() -> None:
    recorder, gaps, at = replay([Event(1.0, 3), Event(1.0, 4)])
    assert gaps == [0.25] * 4
    assert finished(recorder, at).tpots == (0.25,)


def test_part_of_a_character_is_no_token_yet() -> None:
    recorder, gaps, at = replay([Event(1.0, 1), Event(0.5, 0), Event(0.5, 1)])
    assert gaps == [1.0]
    assert finished(recorder, at).tpots == (1.0,)


def test_tokens_are_estimated_only_where_neither_usage_nor_events_count_them() -> None:
    recorder, _, at = replay([Event(1.0, None), Event(1.0, None)])
    guessed = finished(recorder, at, usage=Usage(input=7))
    assert (guessed.usage, guessed.estimated) == (Usage(input=7, output=2), True)
    recorder, _, at = replay([Event(1.0, 2), Event(1.0, 3)])
    known = finished(recorder, at)
    assert (known.usage.output, known.estimated) == (5, False)
    recorder, _, at = replay([Event(1.0, None)])
    told = finished(recorder, at, usage=Usage(output=4))
    assert (told.usage.output, told.estimated) == (4, False)


@pytest.mark.parametrize("outcome", BAD)
def test_a_bad_end_counts_the_gap_that_was_open(outcome: Outcome) -> None:
    recorder, gaps, at = replay([Event(1.0), Event(1.0)])
    finished(recorder, at + 30.0, outcome)
    assert gaps == [1.0, 30.0]


@pytest.mark.parametrize("outcome", FINISHED)
def test_a_good_end_has_no_open_gap(outcome: Outcome) -> None:
    recorder, gaps, at = replay([Event(1.0), Event(1.0)])
    finished(recorder, at + 30.0, outcome)
    assert gaps == [1.0]


@pytest.mark.parametrize("outcome", BAD)
def test_a_bad_end_before_any_token_has_no_gap(outcome: Outcome) -> None:
    recorder, gaps, at = replay([])
    finished(recorder, at + 30.0, outcome)
    assert gaps == []


def test_a_wait_in_which_the_client_was_slow_is_no_open_gap() -> None:
    recorder, gaps, at = replay([Event(1.0)])
    recorder.stalled(at + 1.0, at + 5.0)
    finished(recorder, at + 9.0, Outcome.CANCELLED)
    assert gaps == []


def test_everything_in_the_first_read_after_a_stall_had_piled_up() -> None:
    recorder, gaps, at = replay([Event(1.0), Event(1.0), Event(1.0, stall=8.0), Event(0.0), Event(0.0, 3), Event(1.0)])
    timeline = finished(recorder, at, usage=Usage(output=8))
    assert gaps == [1.0, 1.0]
    assert timeline.tpots == (1.0,)
    assert timeline.stalled == 8.0
    assert timeline.decode == 11.0


@given(st.lists(counted), st.sampled_from(Outcome), st.sampled_from(Outcome))
def test_a_request_ends_once(events: list[Event], first: Outcome, second: Outcome) -> None:
    recorder, gaps, at = replay(events)
    timeline = finished(recorder, at + 1.0, first)
    before = list(gaps)
    assert recorder.finish(at + 2.0, second, ErrorType.RESET) is None
    assert recorder.timeline is timeline
    assert gaps == before


def test_the_phase_of_a_live_request_is_what_is_known() -> None:
    recorder = Recorder(WHO, 100.0, [])
    seen = [recorder.phase]
    recorder.dispatched(101.0)
    seen.append(recorder.phase)
    recorder.token(102.0)
    seen.append(recorder.phase)
    assert seen == [LivePhase.QUEUEING, LivePhase.WAITING, LivePhase.DECODE]


def test_a_replay_is_not_a_new_wait() -> None:
    recorder = Recorder(WHO, 100.0, [])
    recorder.dispatched(101.0)
    recorder.dispatched(105.0)
    recorder.token(106.0)
    assert finished(recorder, 107.0).queueing == Phase(1.0, Source.LOWER_BOUND)


def test_reasoning_is_a_token_but_not_the_answer() -> None:
    recorder = Recorder(WHO, 100.0, [])
    recorder.token(101.0, answer=False)
    recorder.token(103.0)
    timeline = finished(recorder, 104.0)
    assert timeline.ttft == 1.0
    assert timeline.time_to_first_answer == 3.0


def test_without_reasoning_the_first_answer_is_not_told_twice() -> None:
    recorder, _, at = replay([Event(1.0), Event(1.0)])
    assert finished(recorder, at).time_to_first_answer is None


def test_reasoning_alone_has_no_first_answer() -> None:
    recorder = Recorder(WHO, 100.0, [])
    recorder.token(101.0, answer=False)
    assert finished(recorder, 104.0, Outcome.LENGTH).time_to_first_answer is None


def test_reports_become_phases_and_an_impossible_one_a_conflict() -> None:
    recorder, _, at = replay([Event(1.0), Event(1.0)])
    timeline = finished(recorder, at, hints=Hints(queueing=-3.0, prefill=0.5))
    assert timeline.prefill == Phase(0.5, Source.REPORTED)
    assert timeline.queueing == Phase(0.75, Source.DERIVED)
    assert timeline.conflicts == ("queueing_negative",)
    assert timeline.reported_queueing is None


def test_a_whole_answer_has_phases_only_as_reported() -> None:
    recorder, _, at = replay([])
    timeline = finished(recorder, at + 3.75, hints=Hints(queueing=0.125, prefill=0.5, decode=3.0), sole_queue=True)
    assert (timeline.queueing, timeline.prefill) == (Phase(0.5, Source.DERIVED), Phase(0.5, Source.REPORTED))
    assert timeline.reported_queueing == 0.125
    assert timeline.ttft is None
