"""What is not clearly one HTTP/1.1 request never reaches the engine, and the client is told why."""

from collections.abc import Iterator

import pytest
from support.raw import CHAT, RawClient, chat
from support.relay import RelayProcess
from support.scripted_engine import ScriptedEngine
from support.waiting import until

from exporter import catalog
from exporter.core.outcome import Outcome


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


@pytest.fixture(scope="module")
def relay(engine: ScriptedEngine) -> Iterator[RelayProcess]:
    with RelayProcess(engine.url, {"max-body": "64KiB"}) as running:
        yield running


POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"

AMBIGUOUS = {
    "length and chunked": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "the same length twice": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "a list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "a signed length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "a bad chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", 400),
    "a chunk longer than it says": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
    "bare LF in chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n", 400),
    "an unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "two codings": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a bare CR": (b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "a folded header": (GET + b"A: b\r\n  c\r\n\r\n", 400),
    "a space before the colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "a zero byte": (GET + b"A: b\x00c\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (GET + b"Host: y\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "an upgrade to h2c": (
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        501,
    ),
    "a proxy's CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", 400),
    "a head without end": (GET + b"A: " + b"b" * 200_000, 431),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_or_foreign_requests_are_refused(engine: ScriptedEngine, relay: RelayProcess, name: str) -> None:
    data, status = AMBIGUOUS[name]
    engine.clear()
    with RawClient(relay.port) as client:
        client.send(data)
        answer = client.answer()
        assert answer.status == status
        assert answer.header("connection") == "close"
        assert answer.error["type"] == "invalid_request_error"
        assert answer.error["message"]
        assert client.ended()
    assert [one for one in engine.exchanges() if one.complete is not None] == []


@pytest.mark.parametrize("name", ["two lengths", "a bad chunk size", "HTTP/2", "no Host"])
def test_they_are_refused_byte_by_byte_too(relay: RelayProcess, name: str) -> None:
    data, status = AMBIGUOUS[name]
    with RawClient(relay.port) as client:
        for index in range(len(data)):
            try:
                client.send(data[index : index + 1])
            except (BrokenPipeError, ConnectionResetError):
                break  # refused before the end
        try:
            assert client.answer().status == status
        except ConnectionResetError:
            assert b" %d " % status in client.received or not client.received


def test_a_bad_request_behind_a_good_one_does_not_spoil_it(relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nNONSENSE\r\n\r\n")
        assert client.answer().status == 200
        assert client.ended()


@pytest.mark.parametrize("path", [CHAT, "/upload"])
def test_a_body_over_the_limit_is_refused(relay: RelayProcess, path: str) -> None:
    with RawClient(relay.port) as client:
        client.post(path, chat(padding="x" * 100_000))
        answer = client.answer()
    assert answer.status == 413
    assert "65536" in str(answer.error["message"])


def test_refusals_are_counted_by_reason(relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.send(AMBIGUOUS["HTTP/2"][0])
        client.answer()
    until(lambda: relay.counter((catalog.REFUSED, ("http2",))) > 0, "the count")


def test_a_followed_request_cut_by_its_client_is_cancelled(engine: ScriptedEngine, relay: RelayProcess) -> None:
    relay.timelines.clear()
    with RawClient(relay.port) as client:
        client.post(CHAT, chat({"hang": "prefill"}))
        engine.wait(lambda seen: any(one.headers_sent is not None for one in seen))
    (timeline,) = relay.ended(1)
    assert timeline.outcome is Outcome.CANCELLED
