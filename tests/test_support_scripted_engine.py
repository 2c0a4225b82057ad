"""The scripted engine says what its script says, as an openai client and a raw socket see it."""

import hashlib
import http.client
import json
import socket
from collections.abc import Iterator

import openai
import pytest
from support.scripted_engine import Script, ScriptedEngine

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


@pytest.fixture
def client(engine: ScriptedEngine) -> Iterator[openai.OpenAI]:
    engine.clear()
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as running:
        yield running


def post(
    engine: ScriptedEngine, script: dict[str, object], path: str = "/v1/chat/completions", **body: object
) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
    try:
        connection.request("POST", path, json.dumps({"model": "m", "stream": True, "script": script, **body}))
        return connection.getresponse().read()
    finally:
        connection.close()


def chat(
    client: openai.OpenAI, script: dict[str, object], **more: object
) -> list[openai.types.chat.ChatCompletionChunk]:
    stream = client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, extra_body={"script": script}, **more
    )  # type: ignore[call-overload]
    return list(stream)


def test_a_stream_has_role_tokens_finish_and_usage_only_when_asked(client: openai.OpenAI) -> None:
    plain = chat(client, {"tokens": 3})
    assert [chunk.choices[0].delta.content for chunk in plain] == ["", "t0 ", "t1 ", "t2 ", None]
    assert plain[-1].choices[0].finish_reason == "stop"
    asked = chat(client, {"tokens": 3}, stream_options={"include_usage": True})
    assert asked[-1].choices == []
    assert asked[-1].usage is not None
    assert asked[-1].usage.completion_tokens == 3


def test_a_connection_serves_many_requests(engine: ScriptedEngine) -> None:
    engine.clear()
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
    for first_after in (0.0, 0.005, 0.0, 0.005):
        connection.request("POST", "/v1/completions", json.dumps({"script": {"first_after": first_after}}))
        assert json.loads(connection.getresponse().read())["choices"]
    connection.close()
    assert len({one.connection for one in engine.wait_over(4, "/v1/completions")}) == 1


def test_usage_may_sit_on_the_finish_chunk_or_on_every_chunk(client: openai.OpenAI) -> None:
    finish = chat(client, {"tokens": 2, "usage": "finish_chunk", "done": False})
    assert finish[-1].usage is not None
    assert finish[-1].choices[0].finish_reason == "stop"
    every = chat(client, {"tokens": 3, "usage": "every"})
    assert [chunk.usage.completion_tokens for chunk in every if chunk.usage] == [0, 1, 2, 3, 3]


def test_reasoning_comes_first_and_tool_calls_have_no_content(client: openai.OpenAI) -> None:
    thought = chat(client, {"tokens": 3, "reasoning": 2, "reasoning_field": "reasoning_content"})
    assert [getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in thought[1:3]] == ["t0 ", "t1 "]
    called = chat(client, {"tokens": 2, "tool_calls": True})
    calls = [chunk.choices[0].delta.tool_calls for chunk in called[1:3]]
    assert [call[0].function.arguments for call in calls if call and call[0].function] == ["t0 ", "t1 "]
    assert called[-1].choices[0].finish_reason == "tool_calls"


def test_several_tokens_share_an_event_and_choices_alternate(client: openai.OpenAI) -> None:
    chunks = chat(client, {"tokens": 5, "tokens_per_event": 2, "choices": 2, "finish_on_last": True})
    seen = [(c.choices[0].index, c.choices[0].delta.content) for c in chunks[2:]]
    assert seen == [(0, "t0 t1 "), (1, "t0 t1 "), (0, "t2 t3 "), (1, "t2 t3 "), (0, "t4 "), (1, "t4 ")]
    assert [c.choices[0].finish_reason for c in chunks[-2:]] == ["stop", "stop"]


def test_an_unstreamed_answer_is_one_json_object_of_the_size_asked(
    client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    body = json.loads(post(engine, {"tokens": 4, "body_bytes": 5000, "cached_tokens": 8}, stream=False))
    assert len(body["choices"][0]["message"]["content"]) == 5000
    assert body["usage"] == {
        "prompt_tokens": 11,
        "total_tokens": 15,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 8},
    }


def test_completions_have_text_and_no_role(client: openai.OpenAI) -> None:
    stream = client.completions.create(model="m", prompt="x", stream=True, extra_body={"script": {"tokens": 2}})
    assert [chunk.choices[0].text for chunk in stream] == ["t0 ", "t1 ", ""]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_line_ends_comments_and_raw_bodies_are_verbatim(engine: ScriptedEngine, line_end: str) -> None:
    body = post(engine, {"tokens": 1, "line_end": line_end, "comments": True}).decode()
    events = body.split(2 * line_end)
    assert events[0] == events[3] == ": keep-alive"
    assert events[-2:] == ["data: [DONE]", ""]
    raw = 'data: {"ü": 1}\n\ndata: [DONE]\n\n'
    assert post(engine, {"raw": raw, "cut": 1, "gap": 0.001}, path="/anything").decode() == raw


def test_an_error_before_the_stream_has_its_status_and_one_within_is_an_event(
    client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    with pytest.raises(openai.InternalServerError):
        chat(client, {"status": 503})
    events = post(engine, {"tokens": 5, "error_after": 2}).decode().split("\n\n")
    assert "t1 " in events[2]
    assert json.loads(events[3].removeprefix("data: "))["error"]["code"] == 500


@pytest.mark.parametrize("place", ["headers", "prefill", "decode"])
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_cut_connection_ends_the_answer_at_the_place_named(engine: ScriptedEngine, place: str, how: str) -> None:
    engine.clear()
    with pytest.raises((ConnectionResetError, http.client.HTTPException)):
        post(engine, {"tokens": 6, "first_after": 0.02, "gap": 0.01, "reset_at": place, "cut_by": how})
    seen = engine.wait_over()[0]
    assert seen.ended is not None
    assert (seen.headers_sent is None) == (place == "headers")
    assert len(seen.tokens) == (3 if place == "decode" else 0)


def test_a_cut_on_the_head_needs_no_body(engine: ScriptedEngine) -> None:
    head = 'POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-script: {"reset_at":"accept"}\r\ncontent-length: 9\r\n\r\n'
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as peer:
        peer.sendall(head.encode())
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


@pytest.mark.parametrize(("hang", "phase"), [(True, "headers"), ("prefill", "prefill"), ("decode", "decode")])
def test_a_peer_that_leaves_is_noticed_with_its_phase(engine: ScriptedEngine, hang: object, phase: str) -> None:
    engine.clear()
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as peer:
        body = json.dumps({"stream": True, "script": {"hang": hang}})
        peer.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        engine.wait(lambda all_: bool(all_) and all_[0].complete is not None and all_[0].where == phase)
    seen = engine.wait_over()[0]
    assert seen.disconnected is not None
    assert seen.phase == phase


def test_moments_follow_the_script(engine: ScriptedEngine) -> None:
    engine.clear()
    post(engine, {"headers_after": 0.03, "first_after": 0.08, "gap": 0.02, "tokens": 3})
    seen = engine.wait_over()[0]
    assert seen.complete is not None
    offsets = [moment - seen.complete for moment in [seen.headers_sent or 0, *seen.tokens]]
    assert all(got >= want - 0.002 for got, want in zip(offsets, [0.03, 0.08, 0.10, 0.12], strict=True))
    assert seen.last_token == seen.tokens[-1]


def test_an_upload_is_counted_and_hashed_and_an_upgrade_echoes(engine: ScriptedEngine) -> None:
    blob = bytes(range(256)) * 5000
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
    connection.request("POST", "/upload", iter([blob[:100_000], blob[100_000:]]), encode_chunked=True)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert answer == {"length": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as peer:
        peer.sendall(b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        assert b"101" in peer.recv(1000)
        peer.sendall(b"\x00frame\xff")
        assert peer.recv(1000) == b"\x00frame\xff"


def test_the_log_is_read_over_http_with_headers_and_bodies(engine: ScriptedEngine) -> None:
    engine.clear()
    post(engine, {"tokens": 1}, model="named")
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
    connection.request("GET", "/__log")
    (seen,) = json.loads(connection.getresponse().read())["exchanges"]
    connection.close()
    assert json.loads(seen["body"])["model"] == "named"
    assert ["host", f"127.0.0.1:{engine.port}"] in seen["headers"]
    assert seen["complete"] <= seen["first_token"] <= seen["ended"]


def test_a_slow_reader_stalls_the_answer_and_not_the_memory(engine: ScriptedEngine) -> None:
    engine.clear()
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as peer:
        script = {"tokens": 4000, "body_bytes": 10_000, "log_tokens": False}
        body = json.dumps({"stream": True, "script": script})
        peer.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        engine.wait(lambda all_: bool(all_) and all_[0].held is not None)
        received = b""
        while b"[DONE]" not in received[-200:]:
            received = received[-200:] + peer.recv(1 << 20)
    assert engine.wait_over()[0].stalled > 0


def test_a_script_with_an_unknown_key_is_refused_by_name(engine: ScriptedEngine) -> None:
    assert b"tokenz" in post(engine, {"tokenz": 1})


def test_new_connections_can_be_refused_for_a_while(engine: ScriptedEngine) -> None:
    engine.stop_listening()
    with pytest.raises(ConnectionRefusedError):
        post(engine, {})
    engine.listen_again()
    assert b"[DONE]" in post(engine, {})


def test_the_default_script_answers_a_request_without_one() -> None:
    with (
        ScriptedEngine(Script(tokens=1, text="only")) as own,
        openai.OpenAI(base_url=f"{own.url}/v1", api_key="x") as client,
    ):
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}])
    assert answer.choices[0].message.content == "only"
