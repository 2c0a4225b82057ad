"""Engines that fail and clients that leave, at every point: a clear error or a clean cut, and one true record."""

import time
from collections.abc import Iterator

import pytest
from support.canned import CannedEngine
from support.ports import free_port
from support.raw import CHAT, RawClient, chat
from support.relay import RelayProcess, resident_kib
from support.scripted_engine import ScriptedEngine
from support.waiting import until

from exporter import catalog
from exporter.core.outcome import ErrorType, Outcome


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


@pytest.fixture
def relay(engine: ScriptedEngine) -> Iterator[RelayProcess]:
    engine.clear()
    with RelayProcess(engine.url, {"first-token-timeout": "700ms", "idle-timeout": "500ms"}) as running:
        yield running


def test_no_engine_is_a_502_in_openais_shape() -> None:
    port = free_port()
    with RelayProcess(f"http://127.0.0.1:{port}") as relay, RawClient(relay.port) as client:
        client.post(CHAT, chat())
        answer = client.answer()
        assert answer.status == 502
        assert f"127.0.0.1:{port}" in str(answer.error["message"])
        assert answer.error["type"] == "upstream_error"
        (timeline,) = relay.ended(1)
        assert (timeline.outcome, timeline.error_type, timeline.status) == (Outcome.FAILED, ErrorType.CONNECT, 502)
        client.post(CHAT, chat())  # the connection is still good
        assert client.answer(1).status == 502


@pytest.mark.parametrize("cut_by", ["rst", "fin"])
@pytest.mark.parametrize("place", ["accept", "headers"])
def test_a_cut_before_the_answer_is_a_502(relay: RelayProcess, place: str, cut_by: str) -> None:
    with RawClient(relay.port) as client:
        client.post(CHAT, chat(), f'x-script: {{"reset_at": "{place}", "cut_by": "{cut_by}"}}')
        assert client.answer().status == 502
    (timeline,) = relay.ended(1)
    assert (timeline.outcome, timeline.error_type, timeline.ttft) == (Outcome.FAILED, ErrorType.RESET, None)


@pytest.mark.parametrize("cut_by", ["rst", "fin"])
@pytest.mark.parametrize("place", ["prefill", "decode"])
def test_a_cut_within_the_answer_is_a_cut_for_the_client(relay: RelayProcess, place: str, cut_by: str) -> None:
    with RawClient(relay.port) as client:
        client.post(CHAT, chat({"reset_at": place, "cut_by": cut_by, "tokens": 8, "gap": 0.01}))
        answer = client.answer()
        assert answer.status == 200
        assert not answer.complete
    (timeline,) = relay.ended(1)
    assert (timeline.outcome, timeline.error_type) == (Outcome.FAILED, ErrorType.RESET)
    assert (timeline.ttft is not None) == (place == "decode")


@pytest.mark.parametrize("place", ["headers", "prefill"])
def test_an_engine_that_gives_no_token_is_timed_out(relay: RelayProcess, place: str) -> None:
    with RawClient(relay.port) as client:
        client.post(CHAT, chat({"hang": place}))
        answer = client.answer()
        assert answer.complete == (place == "headers")
        if place == "headers":
            assert answer.status == 504
            assert "0.7 s" in str(answer.error["message"])
    (timeline,) = relay.ended(1)
    assert (timeline.outcome, timeline.error_type) == (Outcome.TIMED_OUT, ErrorType.FIRST_TOKEN_TIMEOUT)


def test_an_answer_that_cannot_be_looked_into_is_not_timed_out_while_it_flows(relay: RelayProcess) -> None:
    headers = {"content-encoding": "x-secret"}
    with RawClient(relay.port) as client:
        client.post(CHAT, chat({"tokens": 20, "gap": 0.05, "headers": headers}))  # longer than the first-token timeout
        assert client.answer().complete
    (timeline,) = relay.ended(1)
    assert (timeline.outcome, timeline.events) == (Outcome.COMPLETED, 0)


def test_an_upload_that_stops_is_timed_out_and_not_called_invalid(engine: ScriptedEngine) -> None:
    flags = {"inspect-limit": "1KiB", "idle-timeout": "300ms"}
    with RelayProcess(engine.url, flags) as relay, RawClient(relay.port) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".encode()
        client.send(head + b"x" * 5000)
        assert client.answer().status == 408
        (timeline,) = relay.ended(1)
        assert (timeline.outcome, timeline.error_type) == (Outcome.TIMED_OUT, ErrorType.IDLE_TIMEOUT)


def test_an_engine_that_falls_silent_is_timed_out_and_its_stall_shows(relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.post(CHAT, chat({"hang": "decode", "tokens": 8, "gap": 0.01}))
        assert not client.answer().complete
    (timeline,) = relay.ended(1)
    assert (timeline.outcome, timeline.error_type) == (Outcome.TIMED_OUT, ErrorType.IDLE_TIMEOUT)
    gaps = (catalog.ITL, ("chat", "scripted", "generic"))
    until(lambda: gaps in relay.tally.histograms and relay.tally.histograms[gaps].sum > 0.5, "the open gap in ITL")


@pytest.mark.parametrize(
    ("sent", "error_type"),
    [
        (b"not http at all\r\n\r\n", ErrorType.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ErrorType.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Len", ErrorType.RESET),
        (b"", ErrorType.RESET),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", ErrorType.PROTOCOL),
    ],
)
def test_an_answer_that_is_none_is_a_502(sent: bytes, error_type: ErrorType) -> None:
    with CannedEngine(sent) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.post(CHAT, chat())
        assert client.answer().status == 502
        (timeline,) = relay.ended(1)
        assert (timeline.outcome, timeline.error_type) == (Outcome.FAILED, error_type)


def test_a_broken_chunk_in_the_first_read_is_a_502() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        CannedEngine(head + b"5\r\nhelloBROKEN") as engine,
        RelayProcess(engine.url) as relay,
        RawClient(relay.port) as client,
    ):
        client.post(CHAT, chat())
        assert client.answer().status == 502
        assert relay.ended(1)[0].error_type is ErrorType.PROTOCOL


def test_interim_answers_stay_between_neighbours() -> None:
    sent = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with CannedEngine(sent) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.body, answer.header("link")) == (200, b"ok", None)


def test_bytes_after_an_answer_close_that_connection_only() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with (
        CannedEngine(one + b"HTTP/1.1 200 OK\r\n", one) as engine,
        RelayProcess(engine.url) as relay,
        RawClient(relay.port) as client,
    ):
        for number in range(2):
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.answer(number).body == b"ok"


def test_a_reused_connection_that_just_closes_costs_the_client_nothing() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
    # The first connection answers once, stays open for the relay to reuse, and dies on the next request.
    with CannedEngine(one, one, hold=True) as engine, RelayProcess(engine.url) as relay:
        with RawClient(relay.port) as client:
            client.post(CHAT, chat(stream=False))
            assert client.answer(0).status == 200
            client.post(CHAT, chat(stream=False))
            engine.wait_and_close(0)
            assert client.answer(1).status == 200
        assert engine.accepted == 2
        assert [one.outcome for one in relay.ended(2)] == [Outcome.COMPLETED] * 2
        until(lambda: relay.counter((catalog.REPLAYS, ())) == 1, "the count of replays")


@pytest.mark.parametrize("place", ["headers", "prefill", "decode"])
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_client_that_leaves_is_known_to_the_engine_at_once(
    engine: ScriptedEngine, relay: RelayProcess, place: str, leave: str
) -> None:
    with RawClient(relay.port) as client:
        client.post(CHAT, chat({"hang": place, "tokens": 6, "gap": 0.005}))
        if place == "headers":
            engine.wait(lambda seen: any(one.complete is not None for one in seen))
        else:
            while not client.read():
                pass
        if place == "decode":
            while client.received.count(b"data: ") < 3:
                client.read()
        left = time.monotonic()
        client.close() if leave == "close" else client.reset()
    (seen,) = engine.wait(lambda exchanges: exchanges[0].disconnected is not None)
    assert seen.disconnected is not None
    assert seen.disconnected - left < 0.25  # milliseconds; the machine is shared
    (timeline,) = relay.ended(1)
    assert timeline.outcome is Outcome.CANCELLED
    assert (timeline.events > 0) == (place == "decode")


def test_a_client_that_leaves_after_its_last_token_had_its_answer(relay: RelayProcess) -> None:
    script = {"tokens": 3, "cut": 0}
    with RawClient(relay.port) as client:
        client.post(CHAT, chat(script))
        while b"[DONE]" not in client.received:
            client.read()
    (timeline,) = relay.ended(1)
    assert timeline.outcome is Outcome.COMPLETED


def _silent_for(engine: ScriptedEngine, seconds: float) -> bool:
    seen = engine.exchanges(CHAT)
    last = seen[-1].last_token if seen else None
    return last is not None and time.monotonic() - last > seconds


def test_a_slow_client_stops_the_engine_and_is_not_called_slow_decoding(engine: ScriptedEngine) -> None:
    engine.clear()
    with RelayProcess(engine.url) as relay:
        with RawClient(relay.port, receive_buffer=65536) as client:
            before = resident_kib(relay.pid)
            client.post(CHAT, chat({"tokens": 200, "body_bytes": 100_000}))
            until(lambda: _silent_for(engine, 0.3), "the engine to be stopped")
            assert engine.exchanges(CHAT)[-1].ended is None
            assert resident_kib(relay.pid) - before < 8 * 1024
            assert client.answer().complete
        (timeline,) = relay.ended(1)
        assert timeline.stalled > 0.1
        assert timeline.outcome is Outcome.COMPLETED
        decode = timeline.decode
        assert decode is not None
        assert decode > 0.1
        assert all(tpot < decode / 20 for tpot in timeline.tpots)


def test_a_slow_engine_stops_an_upload(engine: ScriptedEngine) -> None:
    with RelayProcess(engine.url, {"inspect-limit": "64KiB"}) as relay:
        size = 48 * 1024 * 1024
        before = resident_kib(relay.pid)
        with RawClient(relay.port) as client:
            client.send(b'POST /upload HTTP/1.1\r\nHost: x\r\nx-script: {"read_after": 0.5}\r\n')
            client.send(b"Content-Length: %d\r\n\r\n" % size)
            block = bytes(1024 * 1024)
            highest = 0
            for _ in range(size // len(block)):
                client.send(block)
                highest = max(highest, resident_kib(relay.pid))
            assert client.answer().status == 200
        assert highest - before < 16 * 1024
