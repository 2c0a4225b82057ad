"""The same answer, written and cut in every way, is the same answer."""

import json

import pytest
from support.replay import (
    DONE,
    asking,
    bytewise,
    chunk,
    content,
    cut,
    event,
    finish,
    play,
    role,
    stream,
    timeless,
    usage,
)

from exporter.core.outcome import Outcome

PINGS = (b":\n\n", b": keep-alive\n\n", b": keep-alive\r\n\r\n")

WHOLE = [
    event(chunk(role())), b": keep-alive\n\n", event(chunk(content("ключ"))), event(chunk(content(" 🔑"))),
    event(chunk(finish())), event(usage(2)), DONE,
]  # fmt: skip
REWRITTEN = {
    "CRLF": b"".join(WHOLE).replace(b"\n", b"\r\n"),
    "CR": b"".join(WHOLE).replace(b"\n", b"\r"),
    "mixed": b"".join(one.replace(b"\n", end) for one, end in zip(WHOLE, [b"\r", b"\n", b"\r\n"] * 3, strict=False)),
    "no space": b"".join(WHOLE).replace(b"data: ", b"data:"),
    "trailing space": b"".join(WHOLE).replace(b"\n\n", b" \n\n"),
    "BOM": b"\xef\xbb\xbf" + b"".join(WHOLE),
    "pings": b"".join(ping + one for ping, one in zip(PINGS * 3, WHOLE, strict=False)) + b":\n\n",
    "ids": b"".join(WHOLE).replace(b"data: {", b"id: 1\nretry: 10\ndata: {"),
    "message events": b"".join(WHOLE).replace(b"data: {", b"event: message\ndata: {"),
    "several lines": b"".join(WHOLE).replace(b',"choices"', b',\ndata: "choices"'),
    "no [DONE]": b"".join(WHOLE[:-1]),
    "[DONE] without its empty line": b"".join(WHOLE).removesuffix(b"\n"),
    "[DONE] without a line end": b"".join(WHOLE).removesuffix(b"\n\n"),
    "more after [DONE]": b"".join(WHOLE) + b'event: trtllm.perf_metrics\ndata: {"Server-Timing":"x"}\n\n',
    "bytes after [DONE]": b"".join(WHOLE) + b"\n\n  \n",
    "named events": b'event: sglext_ids\ndata: {"choices":[{"delta":{"content":"x"}}]}\n\n' + b"".join(WHOLE),
}


@pytest.mark.parametrize("body", REWRITTEN.values(), ids=REWRITTEN.keys())
def test_the_same_answer_written_otherwise_is_the_same(body: bytes) -> None:
    request = asking(stream_options={"include_usage": True})
    expected = timeless(play(cut(b"".join(WHOLE), []), request).timeline)
    places = range(0, len(body), 7)
    for reads in (cut(body, []), bytewise(body), cut(body, places), [(1.0, body[:9]), (1.0, body[9:])]):
        played = play(reads, request)
        assert timeless(played.timeline) == expected
        assert played.forwarded == body
        assert played.exchange.uninspected == []


def test_an_event_over_three_reads_has_the_moment_of_its_last_byte() -> None:
    body = event(chunk(content("ключ")))
    inside_character = body.index("ю".encode()) + 1
    reads = [
        (1.0, body[:3]),
        (2.0, body[3:inside_character]),
        (3.0, body[inside_character:]),
        (4.0, event(chunk(finish()))),
    ]
    assert play(reads).timeline.ttft == 3.0


def test_events_of_one_read_have_one_moment() -> None:
    read = event(chunk(role())) + event(chunk(content("a"))) + event(chunk(content("b")))
    played = play([(5.0, read), (6.0, event(chunk(finish())) + event(usage(2)) + DONE)])
    assert played.timeline.ttft == 5.0
    assert played.gaps == [0.0]
    assert played.timeline.tpot == 0.0


def test_headers_at_once_and_headers_with_the_first_token_give_one_ttft() -> None:
    early = play([(0.001, b""), (4.0, event(chunk(content("a")))), (5.0, event(chunk(finish())))])
    late = play([(4.0, event(chunk(content("a")))), (5.0, event(chunk(finish())))])
    assert early.timeline == late.timeline
    assert early.timeline.ttft == 4.0


def test_what_is_no_json_is_counted_and_changes_nothing_else() -> None:
    played = play(stream(chunk(content("a")), b"data: {broken\n\n", b"data: 7\n\n", chunk(finish()), DONE))
    assert played.timeline.outcome is Outcome.COMPLETED
    assert played.exchange.uninspected == ["answer_not_understood"]
    assert played.timeline.events == 1


def test_an_event_without_data_is_nothing() -> None:
    played = play(stream(chunk(content("a")), b"data:\n\n", b"data: \n\n", b"data\n\n", chunk(finish()), DONE))
    assert played.exchange.uninspected == []


def test_who_answered_is_kept() -> None:
    said = chunk(content("a"), id="chatcmpl-7", model="m@main")
    timeline = play(stream({"choices": []}, said, chunk(finish(), id="", model="other"))).timeline
    assert (timeline.response_id, timeline.response_model, timeline.identity.model) == ("chatcmpl-7", "m@main", "m")


def test_names_that_an_engine_made_up_are_bounded() -> None:
    long = "x" * 100_000
    said = chunk({**content("a"), "finish_reason": long}, id=long, model=long)
    timeline = play(stream(said), json.dumps({"stream": True}).encode()).timeline
    kept = "x" * 256
    assert (timeline.response_id, timeline.response_model, timeline.identity.model) == (kept, kept, kept)
    assert timeline.finish_reasons == (kept,)
