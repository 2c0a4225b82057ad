"""What a request says, what is sent to the engine in its place, and that a strange one goes on untouched."""

import json

import pytest
from support.replay import JSON, asking, chunk, content, exchange, finish, play, stream

from exporter.engines import Engine
from exporter.exchange import Exchange, operation
from exporter.wire import openai

TRACEPARENT = b"00-11111111111111111111111111111111-2222222222222222-01"


def requested(body: bytes | None, **given: object) -> tuple[Exchange, bytes]:
    followed = exchange(**given)  # type: ignore[arg-type]  # its own keywords
    return followed, followed.request(5.0, body)


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        (b"POST", b"/v1/chat/completions", "chat"),
        (b"POST", b"/v1/chat/completions?api-version=1", "chat"),
        (b"POST", b"/openai/deployments/m/chat/completions", "chat"),
        (b"POST", b"/v1/completions", "text_completion"),
        (b"GET", b"/v1/chat/completions", None),
        (b"HEAD", b"/v1/chat/completions", None),
        (b"POST", b"/v1/models", None),
        (b"POST", b"/search?next=/v1/completions", None),
    ],
)
def test_generation_routes_are_followed(method: bytes, target: bytes, name: str | None) -> None:
    assert operation(method, target) == name


@pytest.mark.parametrize("model", ['with "quotes"', "with\nnewlines\r\n", "ключ 🔑", "", "\x00", "x" * 256])
def test_a_models_name_is_kept_as_the_client_wrote_it(model: str) -> None:
    followed, _ = requested(asking(model=model))
    assert followed.recorder.identity.model == model


def test_a_very_long_name_is_cut() -> None:
    followed, sent = requested(asking(model="x" * 1_000_000, stream=False))
    assert followed.recorder.identity.model == "x" * 256
    assert json.loads(sent)["model"] == "x" * 1_000_000


@pytest.mark.parametrize("model", [None, 7, True, ["m"], {"name": "m"}, ...])
def test_a_model_that_is_no_string_is_unknown_until_the_answer_tells(model: object) -> None:
    followed, _ = requested(asking(model=model))
    assert followed.recorder.identity.model is None
    said = stream(chunk(content("a")), chunk(finish()))
    assert play(said, asking(model=model)).timeline.identity.model == "m"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"7", b'"text"', b"null", b'{"stream":true', b"\xff\xfe", b"\xef\xbb\xbf{}", b"model=m",
     b'{"a":NaN}', b"\x1f\x8b\x08\x00", b'{"a":' + b"[" * 100_000, b'{"a":' + b"9" * 5000 + b".e}"],
    ids=lambda body: body[:16],
)  # fmt: skip
def test_a_body_that_is_no_json_object_goes_on_untouched(body: bytes) -> None:
    followed, sent = requested(body)
    assert sent == body
    assert followed.uninspected == ["request_not_json"]
    assert followed.injected is False
    assert followed.recorder.identity.model is None


@pytest.mark.parametrize("body", [b"{}", b'{"stream":null}', b'{"stream":false,"model":"m"}', b'{"stream":"yes"}'])
def test_a_request_that_is_not_streamed_goes_on_untouched(body: bytes) -> None:
    followed, sent = requested(body)
    assert sent == body
    assert followed.uninspected == []
    assert followed.recorder.identity.stream is False


def test_a_body_too_large_to_look_at_is_followed_from_the_answer() -> None:
    followed, sent = requested(None)
    assert sent == b""
    assert followed.uninspected == ["request_too_large"]
    followed.response(200, [(b"content-type", b"text/event-stream")])
    for at, data in stream(chunk(content("a")), chunk(finish())):
        assert followed.forward(data) == data
        followed.observe(5.0 + at, data)
    timeline = followed.end(9.0)
    assert timeline is not None
    assert timeline.ttft == 1.0
    assert (timeline.identity.model, timeline.identity.stream) == ("m", True)


def test_a_body_that_left_before_it_had_arrived_did_not_queue() -> None:
    followed, _ = requested(None)
    followed.recorder.dispatched(5.5)
    followed.arrived(8.0)
    assert followed.held == 0.0
    followed.response(200, [(b"content-type", b"text/event-stream")])
    followed.observe(10.0, stream(chunk(content("a")))[0][1])
    timeline = followed.end(11.0)
    assert timeline is not None
    assert timeline.queueing is not None
    assert timeline.prefill is not None
    assert (timeline.ttft, timeline.queueing.seconds, timeline.prefill.seconds) == (2.0, 0.0, 2.0)


def test_an_answer_that_began_before_its_request_was_complete_is_measured_from_the_head() -> None:
    followed, _ = requested(None)
    followed.recorder.dispatched(5.5)
    followed.response(200, [(b"content-type", b"text/event-stream")])
    followed.observe(6.0, stream(chunk(content("a")))[0][1])
    followed.arrived(8.0)
    timeline = followed.end(9.0)
    assert timeline is not None
    assert timeline.ttft == 1.0


def test_a_stream_that_nobody_asked_for_is_a_stream() -> None:
    timeline = play(stream(chunk(content("a")), chunk(finish())), asking(stream=1)).timeline
    assert timeline.identity.stream is True


def test_a_stream_answered_whole_was_still_asked_for() -> None:
    timeline = play([(1.0, b'{"error":{"message":"no"}}')], asking(), status=400, headers=JSON).timeline
    assert timeline.identity.stream is True


@pytest.mark.parametrize(
    ("members", "choices"),
    [({}, 1), ({"n": 3}, 3), ({"n": None}, 1), ({"n": 0}, 1), ({"n": "3"}, 1), ({"n": True}, 1), ({"n": 2.0}, 1),
     ({"prompt": "a"}, 1), ({"prompt": ["a", "b"]}, 2), ({"prompt": ["a", "b"], "n": 2}, 4), ({"prompt": [1, 2, 3]}, 1),
     ({"prompt": [[1], [2]]}, 2), ({"prompt": []}, 1), ({"prompt": ["a"]}, 1)],
)  # fmt: skip
def test_how_many_answers_are_asked_for(members: dict[str, object], choices: int) -> None:
    request = openai.read_request(json.dumps(members).encode())
    assert request is not None
    assert openai.choices_asked(request) == choices


def test_an_engine_that_is_not_to_be_asked_is_not() -> None:
    followed, sent = requested(asking(), engine=Engine("quiet", asks_usage=False))
    assert sent == asking()
    assert followed.injected is False


# Headers


def test_our_span_is_the_engines_parent_and_the_callers_is_ours() -> None:
    headers = [(b"traceparent", TRACEPARENT), (b"tracestate", b"a=b")]
    followed, _ = requested(asking(), headers=headers)
    identity = followed.recorder.identity
    assert (identity.trace_id, identity.parent_id, identity.tracestate) == ("1" * 32, "2" * 16, "a=b")
    sent = dict(followed.request_headers(headers))
    assert sent[b"traceparent"] == b"00-%b-%b-01" % (b"1" * 32, identity.span_id.encode())
    assert sent[b"tracestate"] == b"a=b"


def test_without_a_valid_caller_a_trace_begins_here_and_a_state_of_none_is_dropped() -> None:
    headers = [(b"traceparent", b"broken"), (b"tracestate", b"a=b")]
    followed, _ = requested(asking(), headers=headers)
    identity = followed.recorder.identity
    assert (identity.parent_id, identity.tracestate) == (None, None)
    sent = dict(followed.request_headers(headers))
    assert sent[b"traceparent"].split(b"-")[1] == identity.trace_id.encode()
    assert b"tracestate" not in sent


def test_without_traces_of_ours_the_callers_go_through() -> None:
    headers = [(b"traceparent", b"broken"), (b"tracestate", b"a=b")]
    followed, _ = requested(asking(), headers=headers, traces=False)
    assert followed.request_headers(headers) == [*headers, (b"accept-encoding", b"identity")]


def test_the_callers_no_to_sampling_is_passed_on() -> None:
    headers = [(b"traceparent", TRACEPARENT[:-1] + b"0")]
    followed, _ = requested(asking(), headers=headers)
    assert followed.recorder.identity.sampled is False
    assert dict(followed.request_headers(headers))[b"traceparent"].endswith(b"-00")


def test_the_engine_is_asked_for_an_answer_that_can_be_read() -> None:
    headers = [(b"host", b"h"), (b"accept-encoding", b"gzip"), (b"content-length", b"9"), (b"authorization", b"key")]
    followed, _ = requested(asking(), headers=headers)
    sent = followed.request_headers(headers)
    assert [header for header in sent if header[0] != b"traceparent"] == [
        (b"host", b"h"),
        (b"authorization", b"key"),
        (b"accept-encoding", b"identity"),
    ]
