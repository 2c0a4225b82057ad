"""What we ask for in the client's stead the client never sees; everything else it sees, byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.replay import (
    DONE,
    STREAM,
    asking,
    bytewise,
    chunk,
    content,
    counts,
    cut,
    event,
    exchange,
    finish,
    play,
    role,
    stream,
    usage,
)

from exporter.core.outcome import Outcome
from exporter.core.timeline import Usage

PING = b": keep-alive\n\n"
ANSWER = [event(chunk(role())), event(chunk(content("ключ"))), PING, event(chunk(content(' "usage":{} ')))]
END = [event(chunk(finish()))]
USAGE = event(usage(7))

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
places = st.lists(st.integers(0, 2000), max_size=12)
shapes = st.sampled_from(
    [
        ([*ANSWER, *END], [DONE]),
        ([*ANSWER, *END], []),
        ([*ANSWER], [*END, DONE]),
        ([*ANSWER, *END, PING], [PING, DONE]),
        ([*ANSWER, *END, DONE], []),
        ([*ANSWER, *END], [b'event: trtllm.perf_metrics\ndata: {"usage":{}}\n\n', DONE]),
    ]
)


@given(shapes, line_ends, line_ends, places)
def test_without_our_usage_chunk_the_answer_is_what_it_would_have_been(
    shape: tuple[list[bytes], list[bytes]], end: bytes, other: bytes, where: list[int]
) -> None:
    before = b"".join(shape[0]).replace(b"\n", end)
    after = b"".join(shape[1]).replace(b"\n", other)
    if end == b"\r" and other == b"\n":
        after = after.removeprefix(b"\n")  # would be the LF of a CRLF
    whole = before + USAGE.replace(b"\n", end) + after
    played = play(cut(whole, where))
    assert played.exchange.injected
    assert played.forwarded == before + after
    assert played.timeline.usage == Usage(11, 7)
    assert played.timeline.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_the_usage_chunk_is_taken_out_byte_by_byte_too(end: bytes) -> None:
    kept = b"".join([*ANSWER, *END, DONE]).replace(b"\n", end)
    whole = b"".join([*ANSWER, *END, USAGE, DONE]).replace(b"\n", end)
    assert play(bytewise(whole)).forwarded == kept


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_usage_chunk_that_is_the_last_is_taken_out_whatever_is_missing_of_its_end(missing: int) -> None:
    kept = b"".join([*ANSWER, *END])
    whole = kept + USAGE[: len(USAGE) - missing]
    for reads in (cut(whole, []), bytewise(whole)):
        played = play(reads)
        assert played.forwarded == kept
        assert played.timeline.usage == Usage(11, 7)


def test_what_follows_the_usage_chunk_in_its_read_is_not_held_back() -> None:
    played = play(stream(*ANSWER, *END, USAGE + DONE))
    assert played.forwarded == b"".join([*ANSWER, *END, DONE])


def test_an_event_is_sent_on_as_soon_as_it_is_complete() -> None:
    followed = exchange()
    followed.request(0.0, asking())
    followed.response(200, STREAM)
    one = ANSWER[0].replace(b"\n", b"\r\n")
    assert followed.forward(one[:-1]) == one[:-1]
    assert followed.forward(one[-1:]) == one[-1:]
    assert followed.forward(one[:20]) == b""
    assert followed.forward(one[20:]) == one


@pytest.mark.parametrize("said", [{"include_usage": True}, {"include_usage": False}, {"include_usage": None}, {}])
def test_what_the_client_said_about_usage_is_respected(said: dict[str, object]) -> None:
    request = asking(stream_options=said)
    played = play(stream(*ANSWER, *END, USAGE, DONE), request)
    assert played.request == request
    assert not played.exchange.filters
    assert played.forwarded == b"".join([*ANSWER, *END, USAGE, DONE])
    assert played.timeline.usage == Usage(11, 7)


@pytest.mark.parametrize("first", [chunk(role(), usage=counts(0)), chunk(content("a"), usage=counts(1)),
                                   chunk({**content("a"), "finish_reason": "length"}, usage=counts(1))])  # fmt: skip
@given(where=places)
def test_an_engine_that_tells_usage_to_everybody_keeps_its_usage_chunk(
    first: dict[str, object], where: list[int]
) -> None:
    whole = b"".join([event(first), event(chunk(content("b"), usage=counts(2))), *END, USAGE, DONE])
    assert play(cut(whole, where)).forwarded == whole


def test_usage_on_the_chunk_that_finishes_stays_there() -> None:
    whole = b"".join([*ANSWER, event(chunk(finish(), usage=counts(7)))])
    played = play(cut(whole, []))
    assert played.forwarded == whole
    assert played.timeline.usage.output == 7


@pytest.mark.parametrize("nothing", [None, counts(0, 0)])
def test_empty_usage_beside_choices_does_not_keep_the_usage_chunk(nothing: dict[str, object] | None) -> None:
    said = [event(chunk(content("a"), usage=nothing)), event(chunk(finish(), usage=nothing))]
    assert play(stream(*said, USAGE, DONE)).forwarded == b"".join([*said, DONE])


def test_a_chunk_with_neither_choices_nor_usage_stays() -> None:
    said = [event(chunk(prompt_filter_results=[])), *ANSWER, event(chunk(sglext={"usage": 1})), *END]
    assert play(stream(*said, USAGE, DONE)).forwarded == b"".join([*said, DONE])


@pytest.mark.parametrize(
    "like",
    [
        b'event: own\ndata: {"choices":[],"usage":{}}\n\n',
        b'data: {"choices":[],"usage":{broken\n\n',
        b'data: {"choices":[],"x":{"usage":{}}}\n\n',
        b'data: {"usage":{"completion_tokens":1}}\n\n',
        b': "usage":{}\n\n',
    ],
)
def test_what_only_looks_like_the_usage_chunk_stays(like: bytes) -> None:
    assert play(stream(*ANSWER, like, *END, USAGE, DONE)).forwarded == b"".join([*ANSWER, like, *END, DONE])


@given(st.binary(max_size=300), places)
def test_bytes_that_are_no_events_are_sent_on_as_they_are(body: bytes, where: list[int]) -> None:
    assert play(cut(body, where)).forwarded == body


def test_an_answer_that_is_no_stream_is_sent_on_as_it_is() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    played = play(cut(body, [10]), headers=[(b"content-type", b"application/json")])
    assert played.exchange.injected
    assert not played.exchange.filters
    assert played.forwarded == body
