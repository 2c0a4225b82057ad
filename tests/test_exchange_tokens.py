"""What counts as a token, and when: the shapes in which engines bend a streamed answer."""

import pytest
from support.replay import (
    DONE,
    Played,
    asking,
    chunk,
    content,
    counts,
    delta,
    event,
    finish,
    play,
    role,
    stream,
    usage,
)

from exporter.core.outcome import Outcome
from exporter.core.timeline import Usage


def answered(played: Played, *, output: int | None, events: int, estimated: bool = False) -> None:
    timeline = played.timeline
    assert (timeline.usage.output, timeline.events, timeline.estimated) == (output, events, estimated)


# When the first token was


def test_role_only_delta_is_not_a_token() -> None:
    played = play([(0.5, event(chunk(role()))), (9.0, event(chunk(content("Hi")))), (9.5, event(chunk(finish())))])
    assert played.timeline.ttft == 9.0
    answered(played, output=1, events=1, estimated=True)


@pytest.mark.parametrize("empty", [{"content": None}, {"content": ""}, {"role": "assistant", "reasoning_content": None},
                                   {"content": "", "reasoning_content": "", "tool_calls": []}, {}])  # fmt: skip
def test_an_empty_delta_is_not_a_token(empty: dict[str, object]) -> None:
    played = play(stream(chunk(delta(**empty)), chunk(content("Hi")), chunk(finish())))
    assert played.timeline.ttft == 2.0
    answered(played, output=1, events=1, estimated=True)


def test_role_and_content_in_one_chunk_is_a_token() -> None:
    played = play(stream(chunk(delta(role="assistant", content="Hi")), chunk(finish())))
    assert played.timeline.ttft == 1.0


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_the_first_token_and_content_the_first_answer(name: str) -> None:
    thought = delta(content="", **{name: "hm"})
    played = play(stream(chunk(role()), chunk(thought), chunk(thought), chunk(content("Hi")), chunk(finish())))
    assert played.timeline.ttft == 2.0
    assert played.timeline.time_to_first_answer == 4.0
    assert played.timeline.decode == 2.0
    answered(played, output=3, events=3, estimated=True)


def test_an_answer_of_tool_calls_alone_has_tokens() -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": "{}"}}
    said = [
        chunk(role()),
        chunk(delta(tool_calls=[call])),
        chunk(delta(tool_calls=[rest])),
        chunk(finish("tool_calls")),
    ]
    played = play(stream(*said))
    assert played.timeline.ttft == 2.0
    assert played.timeline.time_to_first_answer is None
    assert played.timeline.outcome is Outcome.COMPLETED
    assert played.timeline.finish_reasons == ("tool_calls",)
    answered(played, output=2, events=2, estimated=True)


@pytest.mark.parametrize("token", [{"refusal": "no"}, {"function_call": {"name": "f"}}, {"audio": {"data": "AA=="}},
                                   {"content": [{"text": "a"}]}])  # fmt: skip
def test_refusals_function_calls_audio_and_parts_are_tokens(token: dict[str, object]) -> None:
    played = play(stream(chunk(role()), chunk(delta(**token)), chunk(finish())))
    assert played.timeline.ttft == 2.0


def test_progress_of_the_prompt_is_not_a_token() -> None:
    progress = chunk(delta(role="assistant", content=None), prompt_progress={"total": 4096, "processed": 512})
    played = play(stream(progress, progress, chunk(content("Hi")), chunk(finish())))
    assert played.timeline.ttft == 3.0


def test_the_last_token_may_stand_on_the_chunk_that_finishes() -> None:
    last = {**content("lo"), "finish_reason": "stop"}
    played = play(stream(chunk(content("Hel")), chunk(last), usage(2), DONE))
    assert played.timeline.decode == 1.0
    assert played.timeline.tpot == 1.0
    answered(played, output=2, events=2)


def test_completions_have_text_and_no_role() -> None:
    text = {"index": 0, "text": " a", "finish_reason": None}
    last = {"index": 0, "text": " b", "finish_reason": "length"}
    played = play(stream(chunk(text), chunk(last), usage(2), DONE), operation="text_completion")
    assert played.timeline.identity.operation == "text_completion"
    assert played.timeline.outcome is Outcome.LENGTH
    answered(played, output=2, events=2)


# How many they were


def test_several_tokens_in_one_event_are_counted_by_usage() -> None:
    played = play(stream(chunk(content("a b c")), chunk(content(" d e")), chunk(finish()), usage(5), DONE))
    answered(played, output=5, events=2)
    assert played.timeline.tpot == 0.25


def test_suppressed_tokens_are_counted_by_usage() -> None:
    seven = [chunk(content(f"t{number}")) for number in range(7)]
    played = play(stream(chunk(role()), *seven, chunk(finish()), usage(12), DONE))
    answered(played, output=12, events=7)
    assert played.timeline.tpot == pytest.approx(6 / 11)
    assert played.gaps == [1.0] * 6


def test_an_empty_text_token_between_two_is_no_event() -> None:
    played = play(stream(chunk(content("a")), chunk(content("")), chunk(content("b")), chunk(finish()), usage(3), DONE))
    assert played.gaps == [2.0]
    answered(played, output=3, events=2)


def test_without_usage_events_are_counted_and_said_to_be_estimated() -> None:
    played = play(stream(chunk(content("a")), chunk(content("b")), chunk(finish()), DONE))
    answered(played, output=2, events=2, estimated=True)
    assert played.timeline.usage.input is None


def test_usage_on_the_chunk_that_finishes() -> None:
    played = play(stream(chunk(content("a")), chunk(content("b")), chunk(finish(), usage=counts(2))))
    answered(played, output=2, events=2)
    assert played.timeline.usage.input == 11


def test_usage_before_the_chunk_that_finishes() -> None:
    played = play(stream(chunk(content("a")), usage(9), chunk(finish()), DONE))
    answered(played, output=9, events=1)


def test_usage_null_on_every_chunk_is_none() -> None:
    played = play(stream(chunk(content("a"), usage=None), chunk(finish(), usage=None), usage(4), DONE))
    answered(played, output=4, events=1)
    played = play(stream(chunk(content("a"), usage=None), chunk(finish(), usage=None), DONE))
    answered(played, output=1, events=1, estimated=True)


def test_zeroed_usage_on_every_chunk_is_no_count() -> None:
    zero = counts(0, 0)
    said = [chunk(content("a"), usage=zero), chunk(content("b"), usage=zero), chunk(finish(), usage=zero)]
    answered(play(stream(*said, usage(2), DONE)), output=2, events=2)
    answered(play(stream(*said)), output=2, events=2, estimated=True)


def test_running_usage_tells_the_tokens_of_each_event() -> None:
    played = play(
        stream(
            chunk(role(), usage=counts(0)),
            chunk(content("a"), usage=counts(2)),
            chunk(content("b"), usage=counts(3)),
            chunk(content("c d e f"), usage=counts(7)),
            chunk({**content("g"), "finish_reason": "length"}, usage=counts(8)),
            usage(8),
            DONE,
        )
    )
    assert played.gaps == [1.0, 0.25, 0.25, 0.25, 0.25, 1.0]
    assert played.timeline.tpot == 0.5
    answered(played, output=8, events=4)


def test_running_usage_alone_counts_where_the_end_is_missing() -> None:
    said = [chunk(content("a"), usage=counts(2)), chunk(content("b"), usage=counts(5))]
    played = play(stream(*said))
    assert played.timeline.outcome is Outcome.FAILED
    assert played.timeline.usage == Usage(11, 5)
    answered(played, output=5, events=2)


def test_usage_that_goes_down_does_not_run() -> None:
    said = [chunk(content("a"), usage=counts(5)), chunk(content("b"), usage=counts(2)), chunk(content("c"))]
    played = play(stream(*said, chunk(finish()), DONE))
    answered(played, output=7, events=3, estimated=True)


def test_usage_that_counts_nothing_new_is_part_of_a_character() -> None:
    said = [
        chunk(content("a"), usage=counts(1)),
        chunk(content("b"), usage=counts(1)),
        chunk(content("c"), usage=counts(2)),
    ]
    played = play(stream(*said, chunk(finish()), usage(2), DONE))
    assert played.gaps == [2.0]
    answered(played, output=2, events=3)


def test_every_part_of_usage_is_kept() -> None:
    told = counts(
        9, 100, prompt_tokens_details={"cached_tokens": 64}, completion_tokens_details={"reasoning_tokens": 4}
    )
    assert play(stream(chunk(finish()), chunk(usage=told))).timeline.usage == Usage(100, 9, 64, 4)
    sglang = counts(9, 100, prompt_tokens_details=None, completion_tokens_details=None, reasoning_tokens=4)
    assert play(stream(chunk(finish()), chunk(usage=sglang))).timeline.usage == Usage(100, 9, None, 4)


@pytest.mark.parametrize("strange", [[], "many", 7, True, {"completion_tokens": "9"}, {"completion_tokens": -1},
                                     {"completion_tokens": 1.5}, {"completion_tokens": True}])  # fmt: skip
def test_usage_that_is_no_count_is_unknown(strange: object) -> None:
    played = play(stream(chunk(content("a")), chunk(finish()), chunk(usage=strange), DONE))
    answered(played, output=1, events=1, estimated=True)


def test_one_token_has_a_ttft_and_neither_tpot_nor_gaps() -> None:
    played = play(stream(chunk(content("a")), chunk(finish("length")), usage(1), DONE))
    assert played.timeline.ttft == 1.0
    assert played.timeline.decode == 0.0
    assert played.timeline.tpots == ()
    assert played.gaps == []
    assert played.timeline.outcome is Outcome.LENGTH


def test_no_token_has_no_ttft_and_its_count_is_zero_only_if_told() -> None:
    told = play(stream(chunk(role()), chunk(finish()), usage(0), DONE))
    answered(told, output=0, events=0)
    assert (told.timeline.ttft, told.timeline.decode, told.timeline.queueing) == (None, None, None)
    answered(play(stream(chunk(role()), chunk(finish()), DONE)), output=None, events=0)


# Several choices


def test_two_choices_interleaved_are_one_request() -> None:
    played = play(
        stream(chunk(role(0)), chunk(role(1)), chunk(content("a", 1)), chunk(content("b", 0)), chunk(content("c", 1)),
               chunk(finish("stop", 1)), chunk(content("d", 0)), chunk(finish("length", 0)), usage(9), DONE),
        asking(n=2),
    )  # fmt: skip
    assert played.timeline.ttft == 3.0
    assert played.timeline.decode == 4.0
    assert played.timeline.finish_reasons == ("length", "stop")
    assert played.timeline.tpots == ()
    assert played.gaps == []
    answered(played, output=9, events=4)


def test_two_choices_with_running_counts_have_gaps_and_tpots_of_their_own() -> None:
    said = [
        chunk(content("a", 0), usage=counts(1)),
        chunk(content("b", 1), usage=counts(1)),
        chunk(content("c", 0), usage=counts(3)),
        chunk({**content("d", 1), "finish_reason": "stop"}, usage=counts(2)),
        chunk({**content("e", 0), "finish_reason": "stop"}, usage=counts(4)),
    ]
    played = play(stream(*said, usage(6), DONE), asking(n=2))
    assert played.gaps == [1.0, 1.0, 2.0, 2.0]
    assert played.timeline.tpots == ((5.0 - 1.0) / 3, 2.0)
    answered(played, output=6, events=5)
    cut_short = play(stream(*said), asking(n=2))
    assert cut_short.timeline.usage == Usage(11, 6)


def test_prompts_of_a_batch_are_choices() -> None:
    said = [chunk({"index": at, "text": "t", "finish_reason": None}) for at in (0, 1, 0, 1)]
    ends = [chunk({"index": at, "text": "", "finish_reason": "stop"}) for at in (0, 1)]
    request = asking(messages=..., prompt=["a", "b"])
    played = play(stream(*said, *ends, DONE), request, operation="text_completion")
    assert played.gaps == []
    answered(played, output=4, events=4, estimated=True)
