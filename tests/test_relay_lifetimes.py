"""Whatever is begun is ended: connections, turns and records, however a client, an engine or an observer behaves."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.raw import CHAT, RawClient, chat
from support.relay import RelayProcess, resident_kib
from support.scripted_engine import ScriptedEngine
from support.waiting import until

from exporter import catalog, control
from exporter.core.outcome import ErrorType, Outcome

WEBSOCKET = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


@pytest.fixture
def relay(engine: ScriptedEngine) -> Iterator[RelayProcess]:
    engine.clear()
    with RelayProcess(engine.url) as running:
        yield running


def idle(relay: RelayProcess) -> None:
    until(lambda: relay.status is not None and relay.status.in_flight == 0, "nothing in flight")
    until(lambda: not relay.live, "nothing live")


@contextmanager
def deaf() -> Iterator[str]:
    """The address of an engine that never accepts, so that connecting to it takes for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}"
        for one in waiting:
            one.close()


def test_an_engine_that_does_not_take_connections_is_a_502_in_time() -> None:
    with deaf() as url, RelayProcess(url, {"connect-timeout": "300ms"}) as relay, RawClient(relay.port) as client:
        client.post(CHAT, chat())
        answer = client.answer()
        assert answer.status == 502
        assert "0.3 s" in str(answer.error["message"])
        (timeline,) = relay.ended(1)
        assert (timeline.outcome, timeline.error_type) == (Outcome.FAILED, ErrorType.CONNECT)


def test_a_client_that_leaves_while_we_connect_is_cancelled() -> None:
    with deaf() as url, RelayProcess(url, {"connect-timeout": "20s"}) as relay:
        with RawClient(relay.port) as client:
            client.post(CHAT, chat())
            until(lambda: bool(relay.live), "the live request")
        (timeline,) = relay.ended(1)
        assert timeline.outcome is Outcome.CANCELLED
        idle(relay)


def test_a_client_may_leave_after_any_byte(engine: ScriptedEngine, relay: RelayProcess) -> None:
    body = json.dumps(chat({"tokens": 3, "gap": 0.002})).encode()
    whole = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    for cut in range(1, len(whole) + 1, 3):
        with RawClient(relay.port) as client:
            client.send(whole[:cut])
            if cut % 2:
                client.reset()
    with RawClient(relay.port) as client:
        client.post(CHAT, chat(stream=False))
        assert client.answer().status == 200
    idle(relay)
    until(lambda: engine.connections <= 1, "the engine's connections to be given up")
    assert all(one.outcome in (Outcome.COMPLETED, Outcome.CANCELLED) for one in relay.timelines)


def test_clients_that_leave_amid_a_pipeline_leave_nothing(relay: RelayProcess) -> None:
    body = json.dumps(chat({"tokens": 3, "gap": 0.002})).encode()
    whole = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    for _ in range(30):
        with RawClient(relay.port) as client:
            client.send(whole + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + whole)
            client.read(100)
            client.reset()
    assert len(relay.ended(30)) >= 30
    idle(relay)


def test_a_tunnel_ends_at_the_engine_when_its_client_leaves(engine: ScriptedEngine, relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.send(WEBSOCKET)
        assert b" 101 " in client.read_raw()
        until(lambda: engine.connections == 1, "the engine's side")
        client.reset()
    until(lambda: engine.connections == 0, "the engine's side to end")
    idle(relay)


def test_a_tunnel_whose_client_does_not_read_is_held_back(relay: RelayProcess) -> None:
    with RawClient(relay.port, receive_buffer=65536) as client:
        client.send(WEBSOCKET)
        assert b" 101 " in client.read_raw()
        before = resident_kib(relay.pid)
        size, block = 64, bytes(1024 * 1024)
        sender = threading.Thread(target=lambda: [client.send(block) for _ in range(size)], daemon=True)
        sender.start()
        got = 0
        while got < size * len(block):
            got += len(client.read_raw())
        sender.join(10)
        assert resident_kib(relay.pid) - before < 16 * 1024


def test_what_still_runs_at_an_abort_is_ended_and_told(engine: ScriptedEngine, relay: RelayProcess) -> None:
    with RawClient(relay.port) as streaming, RawClient(relay.port) as waiting:
        streaming.post(CHAT, chat({"hang": "decode", "tokens": 4}))
        waiting.post(CHAT, chat({"hang": "headers"}))
        engine.wait(lambda seen: sum(one.complete is not None for one in seen) == 2)
        while b"data:" not in streaming.received:
            streaming.read()
        relay.tell(control.Abort())
        assert waiting.answer().status == 503
        assert not streaming.answer().complete
    assert {(one.outcome, one.status) for one in relay.ended(2)} == {(Outcome.FAILED, 200), (Outcome.FAILED, 503)}
    relay.tell(control.Finish())
    assert relay.wait_exit() == 0


def test_an_idle_connection_costs_little(relay: RelayProcess) -> None:
    clients = [RawClient(relay.port) for _ in range(200)]
    before = resident_kib(relay.pid)
    clients += [RawClient(relay.port) for _ in range(500)]
    for number, client in enumerate(clients):
        client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer().status == 200, number
    assert resident_kib(relay.pid) - before < 500 * 16
    for client in clients:
        client.close()


def test_an_observer_that_reads_nothing_costs_a_bounded_amount_and_no_count(engine: ScriptedEngine) -> None:
    requests = 1500
    with RelayProcess(engine.url, observed=False) as relay:
        stuck, theirs = socket.socketpair()
        relay.tell(control.Channel(0, "boot"), theirs.fileno())
        theirs.close()
        before = resident_kib(relay.pid)
        with stuck, RawClient(relay.port) as client:
            for number in range(requests):
                client.post(CHAT, chat({"tokens": 2}, model=f"{number:09d}" * 25))
                assert client.answer(number).status == 200
            assert resident_kib(relay.pid) - before < 32 * 1024
            relay.observe()
            until(lambda: _counted(relay) == requests, "every request to be counted")
            idle(relay)
        assert _counted(relay) == requests


def _counted(relay: RelayProcess) -> float:
    degraded = sum(amount for (name, _), amount in relay.tally.counters.items() if name == catalog.DEGRADED)
    return len(relay.timelines) + degraded
