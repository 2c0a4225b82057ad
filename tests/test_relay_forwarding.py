"""The relay passes on what it is given: bytes, headers, methods, uploads, upgrades."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.canned import CannedEngine
from support.raw import CHAT, Answer, RawClient, chat
from support.relay import RelayProcess
from support.scripted_engine import ScriptedEngine
from support.waiting import until

from exporter import catalog, records
from exporter.core.outcome import ErrorType, Outcome


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


@pytest.fixture(scope="module")
def relay(engine: ScriptedEngine) -> Iterator[RelayProcess]:
    traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with RelayProcess(engine.url, {"max-body": "64MiB", "inspect-limit": "128KiB"}, environ=traces) as running:
        yield running


@pytest.fixture(autouse=True)
def clean(engine: ScriptedEngine, relay: RelayProcess) -> None:
    """Records come in order: when the marker's is here, those of earlier tests are."""
    ask(relay.port, chat(stream=False, model="marker"))
    until(lambda: any(one.identity.model == "marker" for one in relay.timelines), "the marker")
    engine.clear()
    relay.timelines.clear()


def ask(port: int, body: dict[str, object], *headers: str, path: str = CHAT) -> Answer:
    with RawClient(port) as client:
        client.post(path, body, *headers)
        return client.answer()


SCRIPTS: list[dict[str, object]] = [
    {"tokens": 5},
    {"tokens": 5, "line_end": "\r\n", "comments": True},
    {"tokens": 5, "line_end": "\r"},
    {"tokens": 9, "tokens_per_event": 3, "done": False},
    {"tokens": 4, "usage": "finish_chunk", "done": False},
    {"tokens": 4, "choices": 3},
    {"tokens": 4, "cut": 7},
    {"tokens": 4, "text": "ключ — 鍵 🔑", "cut": 5},
    {"tokens": 4, "tool_calls": True, "reasoning": 2},
    {"tokens": 4, "after_done": "event: trtllm.perf_metrics\ndata: {}\n\n"},
    {"tokens": 3, "framing": "close"},
    {"tokens": 6, "error_after": 3},
    {"tokens": 3, "body_bytes": 200_000},
]


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: json.dumps(script)[:50])
def test_the_clients_bytes_are_the_engines(
    engine: ScriptedEngine, relay: RelayProcess, script: dict[str, object], asked: bool | None
) -> None:
    more: dict[str, Any] = {} if asked is None else {"stream_options": {"include_usage": asked}}
    direct = ask(engine.port, chat(script, **more))
    relayed = ask(relay.port, chat(script, **more))
    assert relayed.status == direct.status == 200
    assert _stable(relayed.body) == _stable(direct.body)
    assert relayed.complete
    (timeline,) = relay.ended(1)
    if asked is not False and "error_after" not in script:
        assert timeline.usage.output is not None
        assert not timeline.estimated


def _stable(body: bytes) -> bytes:
    """The engine numbers its answers."""
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"\n".join(map(_renumbered, lines))


def _renumbered(line: bytes) -> bytes:
    if not line.startswith(b"data: {"):
        return line
    data = json.loads(line[6:])
    data.pop("id", None)
    data.pop("created", None)
    return json.dumps(data).encode()


def test_an_answer_that_is_not_streamed_keeps_its_length(relay: RelayProcess) -> None:
    answer = ask(relay.port, chat({"tokens": 7}, stream=False))
    assert answer.header("content-length") == str(len(answer.body))
    (timeline,) = relay.ended(1)
    assert (timeline.outcome, timeline.usage.output, timeline.ttft) == (Outcome.COMPLETED, 7, None)


def test_the_request_reaches_the_engine_but_for_what_is_between_neighbours(
    engine: ScriptedEngine, relay: RelayProcess
) -> None:
    headers = ("Authorization: Bearer k", "X-Request-Id: 7", "X-Drop: me", "Connection: keep-alive, x-drop", "TE: gzip",
               "Accept-Encoding: gzip, br", "X-Bytes: \xe9")  # fmt: skip
    ask(relay.port, chat(stream=False), *headers)
    (seen,) = engine.exchanges(CHAT)
    names = [name for name, _ in seen.headers]
    assert seen.header("authorization") == "Bearer k"
    assert seen.header("x-request-id") == "7"
    assert seen.header("host") == "engine"
    assert seen.header("accept-encoding") == "identity"
    assert not {"x-drop", "te", "transfer-encoding"} & set(names)
    assert json.loads(seen.body) == chat(stream=False)


def test_our_span_becomes_the_parent_of_the_engines(engine: ScriptedEngine, relay: RelayProcess) -> None:
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    ask(relay.port, chat(), f"traceparent: 00-{trace}-{caller}-01", "tracestate: a=b")
    (timeline,) = relay.ended(1)
    (seen,) = engine.exchanges(CHAT)
    identity = timeline.identity
    assert (identity.trace_id, identity.parent_id, identity.tracestate) == (trace, caller, "a=b")
    flags = "01" if identity.sampled else "00"
    assert seen.header("traceparent") == f"00-{trace}-{identity.span_id}-{flags}"
    assert seen.header("tracestate") == "a=b"


def test_a_broken_traceparent_is_no_parent(engine: ScriptedEngine, relay: RelayProcess) -> None:
    ask(relay.port, chat(), "traceparent: 00-zz-11-01")
    (timeline,) = relay.ended(1)
    assert timeline.identity.parent_id is None
    (seen,) = engine.exchanges(CHAT)
    assert timeline.identity.trace_id in (seen.header("traceparent") or "")


def test_usage_is_asked_for_and_its_chunk_is_not_shown(engine: ScriptedEngine, relay: RelayProcess) -> None:
    answer = ask(relay.port, chat({"tokens": 6, "tokens_per_event": 2}))
    (seen,) = engine.exchanges(CHAT)
    assert json.loads(seen.body)["stream_options"] == {"include_usage": True}
    assert b'"usage":{' not in answer.body.replace(b" ", b"")
    (timeline,) = relay.ended(1)
    assert (timeline.events, timeline.usage.output, timeline.estimated) == (3, 6, False)


def test_a_clients_no_to_usage_is_respected(engine: ScriptedEngine, relay: RelayProcess) -> None:
    ask(relay.port, chat({"tokens": 6, "tokens_per_event": 2}, stream_options={"include_usage": False}))
    (seen,) = engine.exchanges(CHAT)
    assert json.loads(seen.body)["stream_options"] == {"include_usage": False}
    (timeline,) = relay.ended(1)
    assert (timeline.usage.output, timeline.estimated) == (3, True)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3 * 1024 * 1024])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_arrives_whole(relay: RelayProcess, size: int, chunked: bool) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    with RawClient(relay.port) as client:
        if chunked:
            client.send(b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, size, 50_000):
                piece = body[start : start + 50_000]
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")
        else:
            client.post("/upload", body)
        told = json.loads(client.answer().body)
    assert told["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_to_look_into_is_followed_from_its_answer(
    engine: ScriptedEngine, relay: RelayProcess, chunked: bool
) -> None:
    script = 'x-script: {"tokens": 4}'
    body = json.dumps(chat(padding="x" * 500_000)).encode()
    with RawClient(relay.port) as client:
        if chunked:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{script}\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.send(head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            client.post(CHAT, body, script)
        answer = client.answer()
    assert answer.status == 200
    (seen,) = engine.wait(bool)
    assert seen.body_length == len(body)
    (timeline,) = relay.ended(1)
    assert (timeline.outcome, timeline.events) == (Outcome.COMPLETED, 4)
    assert timeline.identity.model == "scripted"  # as the answer says
    until(lambda: relay.counter((catalog.UNINSPECTED, ("request_too_large",))) > 0, "the count")


def test_other_routes_are_relayed_and_not_followed(relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        assert json.loads(client.answer(0).body)["object"] == "list"
        client.send(b"GET /nowhere?a=b HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer(1).status == 404
        client.send(b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        head = client.read()
        assert head.startswith(b"HTTP/1.1 ")
        assert head.endswith(b"\r\n\r\n")
    assert relay.timelines == []


def test_requests_may_follow_each_other_before_their_answers(relay: RelayProcess) -> None:
    one = json.dumps(chat({"tokens": 3, "first_after": 0.05}, stream=False)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(one)}\r\n\r\n".encode()
    with RawClient(relay.port) as client:
        client.send((head + one) * 3 + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [client.answer(n).status for n in range(4)] == [200] * 4
    assert len(relay.ended(3)) == 3


def test_a_client_of_http_1_0_gets_an_answer_without_chunks(relay: RelayProcess) -> None:
    body = json.dumps(chat({"tokens": 3})).encode()
    with RawClient(relay.port) as client:
        client.send(f"POST {CHAT} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        while client.read():
            pass
    assert b"transfer-encoding" not in client.received.lower()
    assert client.received.count(b"data: ") >= 4
    assert relay.ended(1)[0].outcome is Outcome.COMPLETED


def test_a_client_that_waits_for_100_continue_gets_it(relay: RelayProcess) -> None:
    body = json.dumps(chat({"tokens": 2}, stream=False)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with RawClient(relay.port) as client:
        client.send(head.encode())
        assert client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert client.answer().status == 200


def test_a_body_may_come_after_the_head_of_a_last_request(relay: RelayProcess) -> None:
    body = json.dumps(chat({"tokens": 2}, stream=False)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
    with RawClient(relay.port) as client:
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        assert client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"  # so the head was read by itself
        client.send(body)
        assert client.answer().status == 200
        assert client.ended()


def test_a_websocket_is_a_tunnel_both_ways(relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        head = b""
        while b"\r\n\r\n" not in head or not head.endswith(b"early"):
            head += client.read_raw()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"upgrade: websocket" in head.lower()
        client.send(b"\x81\x05hello")
        assert client.read_raw() == b"\x81\x05hello"


def test_a_websocket_that_the_engine_does_not_want_is_an_ordinary_answer() -> None:
    refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
    with (
        CannedEngine(refusal, hold=True) as engine,
        RelayProcess(engine.url) as relay,
        RawClient(relay.port) as client,
    ):
        client.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.body, answer.header("connection")) == (404, b"no", "close")
        assert client.ended()


def test_the_engines_connections_are_used_again(engine: ScriptedEngine, relay: RelayProcess) -> None:
    ask(relay.port, chat(stream=False))
    before = engine.accepted
    for _ in range(5):
        assert ask(relay.port, chat(stream=False)).status == 200
    assert engine.accepted == before


def test_errors_of_the_engine_are_the_clients_to_see(engine: ScriptedEngine, relay: RelayProcess) -> None:
    for status, outcome in ((400, Outcome.INVALID), (429, Outcome.REJECTED), (500, Outcome.FAILED)):
        relay.timelines.clear()
        direct = ask(engine.port, chat({"status": status}))
        answer = ask(relay.port, chat({"status": status}))
        assert (answer.status, answer.body) == (status, direct.body)
        (timeline,) = relay.ended(1)
        assert (timeline.outcome, timeline.status) == (outcome, status)
        assert timeline.error_type is (ErrorType.UPSTREAM_5XX if status >= 500 else ErrorType.UPSTREAM_4XX)


def test_a_running_stream_is_seen_while_it_runs(relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.post(CHAT, chat({"tokens": 10, "gap": 0.02, "hang": "decode"}))
        live = until(lambda: _decoding(relay), "a pulse with a decoding request")
        assert live.labels == ("chat", "scripted", "generic")
        assert live.last_token is not None
        tokens = (catalog.TOKENS, ("chat", "scripted", "generic", "output"))
        until(lambda: relay.counter(tokens) > 0, "tokens counted while the stream runs")
    (timeline,) = relay.ended(1)
    assert timeline.outcome is Outcome.CANCELLED
    assert 0 < timeline.ticked <= timeline.events
    assert timeline.ttft_told


def _decoding(relay: RelayProcess) -> records.Live | None:
    return next((live for live in relay.live if "decode" in live.phases), None)
