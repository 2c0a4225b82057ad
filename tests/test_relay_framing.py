"""Where messages begin and end: no byte of one exchange ever counts as part of another."""

from collections.abc import Iterator

import pytest
from support.canned import CannedEngine
from support.raw import CHAT, RawClient, chat
from support.relay import RelayProcess
from support.scripted_engine import ScriptedEngine

from exporter.core.outcome import ErrorType, Outcome


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


@pytest.fixture(scope="module")
def relay(engine: ScriptedEngine) -> Iterator[RelayProcess]:
    with RelayProcess(engine.url) as running:
        yield running


def get(target: str = "/health", *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {target} HTTP/{version}", "Host: x", *headers, "", ""]).encode()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

BODILESS = {
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "304 with the length that it would have": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
    "a length of zero": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no chunk but the last": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BODILESS)
def test_an_answer_without_body_leaves_the_connection_good(name: str) -> None:
    with CannedEngine(BODILESS[name]) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        for number in range(2):
            client.send(get())
            answer = client.answer(number)
            assert answer.complete
            assert answer.body == b""


def test_an_interim_answer_may_come_in_a_read_of_its_own_many_times() -> None:
    sent = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 50 + OK
    with CannedEngine(sent) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.post(CHAT, chat(stream=False))
        assert client.answer().body == b"ok"
        assert client.received.count(b"HTTP/1.1") == 1


def test_trailers_of_an_answer_are_not_passed_on() -> None:
    sent = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
    with CannedEngine(sent) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.send(get())
        assert client.answer().body == b"ok"
        assert b"x-t" not in client.received.lower()


def test_trailers_of_a_request_are_headers_of_none(engine: ScriptedEngine, relay: RelayProcess) -> None:
    engine.clear()
    with RawClient(relay.port) as client:
        head = b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"2\r\nab\r\n0\r\nX-Evil: 1\r\n\r\n" + get("/health"))
        assert client.answer(1).status == 200
    assert [one.path for one in engine.exchanges()] == ["/upload", "/health"]
    assert all(one.header("x-evil") is None for one in engine.exchanges())


def test_what_connection_lists_in_an_answer_ends_here() -> None:
    sent = b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nX-End: 2\r\nContent-Length: 2\r\n\r\nok"
    with CannedEngine(sent) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.send(get())
        answer = client.answer()
        assert (answer.header("x-hop"), answer.header("x-end"), answer.body) == (None, "2", b"ok")


@pytest.mark.parametrize(
    "line",
    [b"X: a\rSet-Cookie: evil", b"X: a\nSet-Cookie: evil", b"X: a\r\n Set-Cookie: evil", b"X: a\x00b", b"X : a"],
)
def test_an_answers_header_that_could_be_read_as_two_is_a_502(line: bytes) -> None:
    sent = b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 2\r\n\r\nok"
    with CannedEngine(sent) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.post(CHAT, chat())
        assert client.answer().status == 502
        assert b"evil" not in client.received
        (timeline,) = relay.ended(1)
        assert (timeline.outcome, timeline.error_type) == (Outcome.FAILED, ErrorType.PROTOCOL)


@pytest.mark.parametrize("codings", [("chunked", "identity"), ("identity", "chunked"), ("chunked", "chunked")])
def test_two_transfer_encodings_are_refused(
    engine: ScriptedEngine, relay: RelayProcess, codings: tuple[str, ...]
) -> None:
    engine.clear()
    lines = "".join(f"Transfer-Encoding: {coding}\r\n" for coding in codings)
    with RawClient(relay.port) as client:
        client.send(f"POST /upload HTTP/1.1\r\nHost: x\r\n{lines}\r\n0\r\n\r\n".encode())
        assert client.answer().status in (400, 501)
        assert client.ended()
    assert engine.exchanges("/upload") == []


@pytest.mark.parametrize("target", ["/a b", "/a\x01b", "/a\rb", "health", ""])
def test_a_target_that_is_none_is_refused(engine: ScriptedEngine, relay: RelayProcess, target: str) -> None:
    engine.clear()
    with RawClient(relay.port) as client:
        client.send(get(target))
        assert client.answer().status in (400, 505)
        assert client.ended()
    assert engine.exchanges() == []


def test_a_client_of_http_1_0_may_keep_its_connection(relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        for number in range(2):
            client.send(get("/health", "Connection: keep-alive", version="1.0"))
            assert client.answer(number).header("connection") == "keep-alive"


def test_an_engine_of_http_1_0_is_not_asked_twice_on_one_connection() -> None:
    sent = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with (
        CannedEngine(sent, hold=True) as engine,
        RelayProcess(engine.url) as relay,
        RawClient(relay.port) as client,
    ):
        for number in range(2):
            client.send(get())
            assert client.answer(number).body == b"ok"
        assert engine.accepted == 2


def test_bytes_behind_a_last_request_do_not_spoil_its_answer(engine: ScriptedEngine, relay: RelayProcess) -> None:
    engine.clear()
    with RawClient(relay.port) as client:
        client.send(get("/health", "Connection: close") + get("/v1/models"))
        assert client.answer().status == 200
        assert client.ended()
    assert [one.path for one in engine.exchanges()] == ["/health"]


def test_a_client_that_does_not_wait_for_100_continue_has_one_answer(relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.post("/upload", b"body", "Expect: 100-continue")
        assert client.answer().status == 200
        client.send(get())
        assert client.answer(1).status == 200
