"""How a request ends: one outcome for each, by what the answer said, whoever hung up first."""

import json

import pytest
from support.replay import (
    DONE,
    JSON,
    STREAM,
    Played,
    Reads,
    asking,
    bytewise,
    chunk,
    content,
    counts,
    cut,
    event,
    exchange,
    finish,
    give,
    play,
    role,
    stream,
    usage,
)

from exporter.core.outcome import ErrorType, Outcome
from exporter.core.timeline import Timeline, Usage
from exporter.exchange import Exchange

COMPLETED = (Outcome.COMPLETED, ErrorType.NONE)
LENGTH = (Outcome.LENGTH, ErrorType.NONE)
CANCELLED = (Outcome.CANCELLED, ErrorType.NONE)
ENGINE_ERROR = (Outcome.FAILED, ErrorType.ENGINE_ERROR)
PROTOCOL = (Outcome.FAILED, ErrorType.PROTOCOL)

TOKENS = [chunk(role()), chunk(content("a")), chunk(content("b"))]


def ending(timeline: Timeline | None) -> tuple[Outcome, ErrorType]:
    assert timeline is not None
    return timeline.outcome, timeline.error_type


def left(reads: Reads, at: float = 20.0, *, status: int = 200, request: bytes | None = None) -> Played:
    """A client that leaves at ``at``, after these reads."""
    gaps: list[float] = []
    followed = exchange(gaps)
    sent = followed.request(0.0, asking() if request is None else request)
    followed.recorder.dispatched(0.0)
    forwarded = give(followed, reads, status)
    timeline = followed.cancelled(at)
    assert timeline is not None
    return Played(followed, sent, forwarded, timeline, gaps)


# An answer that ends


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("stop", COMPLETED), ("tool_calls", COMPLETED), ("content_filter", COMPLETED), ("function_call", COMPLETED),
     ("eos", COMPLETED), ("length", LENGTH), ("abort", ENGINE_ERROR), ("error", ENGINE_ERROR)],
)  # fmt: skip
@pytest.mark.parametrize("end", [[DONE], []], ids=["[DONE]", "no [DONE]"])
def test_a_finish_reason_decides(reason: str, expected: tuple[Outcome, ErrorType], end: list[bytes]) -> None:
    timeline = play(stream(*TOKENS, chunk(finish(reason)), *end)).timeline
    assert ending(timeline) == expected
    assert timeline.finish_reasons == (reason,)


@pytest.mark.parametrize("end", [[], [DONE], [usage(2), DONE]], ids=["nothing", "[DONE]", "usage"])
def test_an_end_without_a_finish_reason_is_a_failure(end: list[dict[str, object] | bytes]) -> None:
    played = play(stream(*TOKENS, *end))
    assert ending(played.timeline) == PROTOCOL
    assert played.timeline.usage.output == 2


def test_an_end_in_the_middle_of_an_event_is_a_failure_with_the_tokens_that_came() -> None:
    last = event(chunk(finish()))
    played = play(stream(*TOKENS, last[:-40]))
    assert ending(played.timeline) == PROTOCOL
    assert played.timeline.usage == Usage(None, 2)
    assert played.forwarded.endswith(last[:-40])


def test_an_end_right_after_a_whole_event_without_its_empty_line_is_read() -> None:
    played = play(stream(*TOKENS, event(chunk(finish())).removesuffix(b"\n\n")))
    assert ending(played.timeline) == COMPLETED


def test_a_choice_that_never_finished_is_a_failure() -> None:
    said = [chunk(content("a", 0)), chunk(content("a", 1)), chunk(finish("stop", 0))]
    assert ending(play(stream(*said, DONE), asking(n=2)).timeline) == PROTOCOL
    assert ending(play(stream(*said, chunk(finish("length", 1)), DONE), asking(n=2)).timeline) == LENGTH


def test_an_event_stream_of_nothing_is_a_failure() -> None:
    assert ending(play([]).timeline) == PROTOCOL
    assert ending(play(stream(b": keep-alive\n\n", DONE)).timeline) == PROTOCOL


# Errors inside an answer that began well

ERRORS = {
    "vLLM, SGLang": b'data: {"error":{"message":"no","type":"InternalServerError","param":null,"code":500}}\n\n',
    "TGI": b'data:{"error":{"message":"no","http_status_code":422}}\n\n',
    "old llama.cpp": b'error: {"code":400,"message":"no"}\n\n',
    "transformers": b'data: {"error": "CUDA out of memory"}\n\n',
    "transformers, not escaped": b'data: {"error": "expected "a", got \n"}\n\n',
    "named": b'event: error\ndata: {"message":"no"}\n\n',
    "named, no JSON": b"event: error\ndata: no\n\n",
    "bare JSON": b'{"error":{"message":"no"}}',
    "bare JSON and a line end": b'{"error":"no"}\n',
    "bare JSON and an empty line": b'{"error":"no"}\n\n',
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.parametrize("said", [[], TOKENS], ids=["before a token", "after tokens"])
@pytest.mark.parametrize("end", [b"", DONE])
def test_an_error_in_the_stream_is_the_engines(error: bytes, said: list[dict[str, object]], end: bytes) -> None:
    if end and not error.endswith(b"\n\n"):
        end = b"\n\n" + end
    whole = b"".join(map(event, said)) + error + end
    for reads in (cut(whole, []), bytewise(whole)):
        played = play(reads)
        assert ending(played.timeline) == ENGINE_ERROR
        assert played.forwarded == whole
        assert played.exchange.uninspected == []
        assert played.timeline.usage.output == (2 if said else None)


def test_an_error_after_a_finish_reason_is_an_error() -> None:
    assert ending(play(stream(*TOKENS, chunk(finish()), ERRORS["TGI"], DONE)).timeline) == ENGINE_ERROR


@pytest.mark.parametrize("nothing", [None])
def test_an_error_of_null_is_none(nothing: None) -> None:
    assert (
        ending(play(stream(chunk(content("a"), error=nothing), chunk(finish(), error=nothing))).timeline) == COMPLETED
    )


# Statuses


@pytest.mark.parametrize(
    ("status", "outcome", "error_type"),
    [(400, Outcome.INVALID, ErrorType.UPSTREAM_4XX), (401, Outcome.INVALID, ErrorType.UPSTREAM_4XX),
     (404, Outcome.INVALID, ErrorType.UPSTREAM_4XX), (408, Outcome.TIMED_OUT, ErrorType.UPSTREAM_4XX),
     (422, Outcome.INVALID, ErrorType.UPSTREAM_4XX), (429, Outcome.REJECTED, ErrorType.UPSTREAM_4XX),
     (500, Outcome.FAILED, ErrorType.UPSTREAM_5XX), (502, Outcome.FAILED, ErrorType.UPSTREAM_5XX),
     (503, Outcome.REJECTED, ErrorType.UPSTREAM_5XX), (504, Outcome.TIMED_OUT, ErrorType.UPSTREAM_5XX)],
)  # fmt: skip
@pytest.mark.parametrize("headers", [JSON, STREAM, [(b"content-type", b"text/plain")], []])
def test_an_error_status_decides(
    status: int, outcome: Outcome, error_type: ErrorType, headers: list[tuple[bytes, bytes]]
) -> None:
    body = b'{"error":{"message":"no","type":"x","param":null,"code":1}}'
    played = play(cut(body, [9]), status=status, headers=headers)
    assert ending(played.timeline) == (outcome, error_type)
    assert played.timeline.status == status
    assert played.forwarded == body
    assert not played.exchange.filters


@pytest.mark.parametrize("status", [204, 205, 304, 307])
def test_an_answer_that_has_no_body_by_its_status_is_complete(status: int) -> None:
    played = play([], status=status, headers=[])
    assert ending(played.timeline) == COMPLETED
    assert played.timeline.usage == Usage()


@pytest.mark.parametrize("headers", [JSON, STREAM])
def test_an_empty_body_of_a_kind_that_cannot_be_empty_is_a_failure(headers: list[tuple[bytes, bytes]]) -> None:
    assert ending(play([], headers=headers).timeline) == PROTOCOL


# An answer that is not streamed


def whole(**members: object) -> bytes:
    said = {"id": "chatcmpl-1", "model": "m@main", "choices": [{"index": 0, "message": {}, "finish_reason": "stop"}]}
    return json.dumps({**said, **members}).encode()


def test_a_whole_answer_has_usage_and_a_latency_and_no_ttft() -> None:
    body = whole(usage=counts(7))
    timeline = play(cut(body, [5, 50], step=1.0), asking(stream=False), headers=JSON).timeline
    assert ending(timeline) == COMPLETED
    assert (timeline.usage, timeline.events, timeline.estimated) == (Usage(11, 7), 0, False)
    assert (timeline.latency, timeline.ttft, timeline.decode, timeline.tpot) == (3.0, None, None, None)
    assert (timeline.response_id, timeline.response_model) == ("chatcmpl-1", "m@main")
    assert timeline.identity.stream is False


def test_the_choices_of_a_whole_answer_end_it() -> None:
    choices = [{"index": 1, "finish_reason": "length"}, {"index": 0, "finish_reason": "stop"}]
    timeline = play(cut(whole(choices=choices), []), headers=JSON).timeline
    assert ending(timeline) == LENGTH
    assert timeline.finish_reasons == ("stop", "length")


def test_a_whole_answer_that_is_an_error_failed_whatever_its_status() -> None:
    assert ending(play(cut(b'{"error":"no"}', []), headers=JSON).timeline) == ENGINE_ERROR


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"choices":7}', b'{"x":' + b"[" * 100_000])
def test_a_whole_answer_that_cannot_be_read_is_counted(body: bytes) -> None:
    played = play(cut(body, []), headers=JSON)
    assert ending(played.timeline) == COMPLETED
    assert played.exchange.uninspected == ["answer_not_understood"]
    assert played.forwarded == body


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"zstd", b"gzip, identity"])
@pytest.mark.parametrize("kind", [JSON, STREAM])
def test_an_encoded_answer_is_relayed_and_counted(encoding: bytes, kind: list[tuple[bytes, bytes]]) -> None:
    body = b"\x1f\x8b\x08\x00data: {}\n\n"
    played = play(cut(body, [3]), headers=[*kind, (b"content-encoding", encoding)])
    assert played.forwarded == body
    assert played.exchange.uninspected == ["answer_encoded"]
    assert ending(played.timeline) == COMPLETED
    assert played.timeline.usage == Usage()


def test_identity_is_no_encoding() -> None:
    headers = [*STREAM, (b"content-encoding", b"Identity")]
    assert play(stream(*TOKENS, chunk(finish())), headers=headers).timeline.events == 2


# A client that leaves


@pytest.mark.parametrize("seen", [0, 1, 2, 3])
def test_a_client_that_leaves_is_cancelled_with_the_tokens_seen_so_far(seen: int) -> None:
    played = left(stream(*TOKENS[:seen]))
    assert ending(played.timeline) == CANCELLED
    tokens = max(0, seen - 1)
    assert played.timeline.usage.output == (tokens or None)
    assert played.timeline.latency == 20.0
    assert sum(played.gaps) == (18.0 if tokens else 0.0)


def test_a_client_that_leaves_before_the_head_is_cancelled() -> None:
    followed = exchange()
    followed.request(0.0, asking())
    timeline = followed.cancelled(3.0)
    assert ending(timeline) == CANCELLED
    assert timeline is not None
    assert timeline.status is None


def test_a_client_that_leaves_after_the_finish_reason_had_its_answer() -> None:
    assert ending(left(stream(*TOKENS, chunk(finish()))).timeline) == COMPLETED
    assert ending(left(stream(*TOKENS, chunk(finish("length")), usage(9))).timeline) == LENGTH


def test_a_client_that_leaves_after_one_choice_of_two_is_cancelled() -> None:
    one = [chunk(content("a", 0)), chunk(finish("stop", 0))]
    assert ending(left(stream(*one), request=asking(n=2)).timeline) == CANCELLED
    other = [chunk(content("a", 1)), chunk(finish("stop", 1))]
    assert ending(left(stream(*one, *other), request=asking(n=2)).timeline) == COMPLETED


def test_a_client_that_leaves_because_of_an_error_did_not_cancel() -> None:
    assert ending(left(stream(*TOKENS, ERRORS["TGI"])).timeline) == ENGINE_ERROR
    assert ending(left([], status=503).timeline) == (Outcome.REJECTED, ErrorType.UPSTREAM_5XX)
    assert ending(left([], status=400).timeline) == (Outcome.INVALID, ErrorType.UPSTREAM_4XX)


def test_a_client_that_leaves_a_whole_answer_is_cancelled() -> None:
    followed = exchange()
    followed.request(0.0, asking(stream=False))
    give(followed, cut(whole(), [40])[:1], headers=JSON)
    assert ending(followed.cancelled(9.0)) == CANCELLED


# Failures, and the end of it all


def test_a_failure_is_told_with_what_came_before_it() -> None:
    followed = exchange()
    followed.request(0.0, asking())
    give(followed, stream(*TOKENS))
    timeline = followed.failed(9.0, Outcome.TIMED_OUT, ErrorType.IDLE_TIMEOUT, 504)
    assert ending(timeline) == (Outcome.TIMED_OUT, ErrorType.IDLE_TIMEOUT)
    assert timeline is not None
    assert timeline.status == 200
    assert timeline.usage.output == 2


def test_the_status_of_a_failure_without_a_head_is_what_the_client_was_told() -> None:
    followed = exchange()
    followed.request(0.0, asking())
    timeline = followed.failed(9.0, Outcome.FAILED, ErrorType.CONNECT, 502)
    assert timeline is not None
    assert timeline.status == 502


@pytest.mark.parametrize("first", ["end", "cancelled", "failed"])
@pytest.mark.parametrize("second", ["end", "cancelled", "failed"])
def test_a_request_ends_once(first: str, second: str) -> None:
    def over(followed: Exchange, how: str, at: float) -> Timeline | None:
        if how == "failed":
            return followed.failed(at, Outcome.FAILED, ErrorType.RESET)
        return followed.end(at) if how == "end" else followed.cancelled(at)

    followed = exchange()
    followed.request(0.0, asking())
    give(followed, stream(*TOKENS, chunk(finish()), b"data: {x\n\n"))
    timeline = over(followed, first, 9.0)
    assert timeline is not None
    assert over(followed, second, 10.0) is None
    assert followed.timeline is timeline
    assert followed.uninspected == ["answer_not_understood"]
