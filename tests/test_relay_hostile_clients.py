"""A client may send anything, read nothing and leave at any moment: others go on, and each gets what is its own."""

import contextlib
import json
from collections.abc import Iterator

import pytest
from support.played_engine import Played, PlayedEngine, answer, get
from support.ports import free_port
from support.raw import CHAT, RawClient, chat
from support.relay import RelayProcess
from support.scripted_engine import ScriptedEngine
from support.waiting import DeadlineError, until

from exporter import control
from exporter.core.outcome import Outcome

LARGE = answer(bytes(100_000))
SHORT = "tests.support.short_relay"
UPLOAD = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
WEBSOCKET = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture(scope="module")
def running() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as engine:
        yield engine


@pytest.fixture
def engine(running: ScriptedEngine) -> ScriptedEngine:
    running.clear()
    return running


@pytest.fixture(name="relay")
def relay_of_the_engine(engine: ScriptedEngine) -> Iterator[RelayProcess]:
    with RelayProcess(engine.url) as relay:
        yield relay


def in_flight(relay: RelayProcess, count: int) -> None:
    until(lambda: relay.status is not None and relay.status.in_flight == count, f"{count} in flight", 8)


def post(size: int, path: str = CHAT, head: str = "") -> bytes:
    """A request with a body of so many bytes."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {size}\r\n\r\n".encode() + b"x" * size


def held_back(engine: PlayedEngine, client: RawClient, at_most: int = 80) -> Iterator[int]:
    """Ask for /large without reading, until the engine is not asked any more; yields after each request it got."""
    for number in range(1, at_most):
        client.send(get("/large"))
        try:
            until(lambda number=number: engine.asked("/large") == number, "the request", 0.5)  # type: ignore[misc]
        except DeadlineError:
            return
        yield number
    raise AssertionError(f"the engine still works for a client that read none of {at_most} answers")


# Clients that do not read


def test_a_client_that_does_not_read_stops_no_other_and_gets_all_it_asked_for() -> None:
    # the last write of an answer stopped the engine's connection after it was given back; its next user hung
    def play(connection: Played) -> None:
        connection.send_buffer(1 << 20)
        while True:
            if b" /large" in connection.head():
                with relay.frozen():  # the answer ends in the same read that makes the client slow
                    connection.send(LARGE)
            else:
                connection.send(answer())

    with (
        PlayedEngine(play) as engine,
        RelayProcess(engine.url, {"upstream-keepalive": "30s"}) as relay,
        RawClient(relay.port, receive_buffer=4096) as slow,
    ):
        asked = 0
        for asked in held_back(engine, slow):  # noqa: B007 - the last one counts
            with RawClient(relay.port, patience=3) as other:
                other.send(get("/small"))
                assert other.answer().body == b"{}"
        assert asked > 1
        assert all(slow.answer(number).complete for number in range(asked + 1))


def test_a_client_that_does_not_take_its_last_answer_is_closed_in_the_end() -> None:
    # close() waited for the queue for ever
    def play(connection: Played) -> None:
        connection.send_buffer(1 << 20)
        while True:
            connection.head()
            with relay.frozen():
                connection.send(LARGE)

    with (
        PlayedEngine(play) as engine,
        RelayProcess(engine.url, {"idle-timeout": "500ms"}, module=SHORT) as relay,
        contextlib.ExitStack() as clients,
    ):
        until(lambda: relay.hellos > 0, "the observer's channel")
        before = relay.descriptors()
        slow = clients.enter_context(RawClient(relay.port, receive_buffer=4096))
        taken = max(held_back(engine, slow))
        for count in range(taken - 2, taken + 3):  # about as many as it takes for the last to be queued, and no more
            client = clients.enter_context(RawClient(relay.port, receive_buffer=4096))
            client.send(get("/large") * count + get("/large", "Connection: close"))
            assert client.read_raw(1)  # it is served, and takes nothing after this
        until(lambda: relay.descriptors() == before, "the end of every connection", 8)


# Clients that send too little, or slowly


def test_a_body_that_never_comes_ends_the_request(engine: ScriptedEngine) -> None:
    # the turn lived for ever, and a drain waited for it
    patience = {"idle-timeout": "500ms", "first-token-timeout": "500ms"}
    with RelayProcess(engine.url, patience) as relay, RawClient(relay.port) as client:
        client.send(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert client.answer().status == 408


def test_a_head_that_does_not_come_and_a_connection_that_idles_are_closed(engine: ScriptedEngine) -> None:
    with (
        RelayProcess(engine.url, module=SHORT) as relay,
        RawClient(relay.port) as slow,
        RawClient(relay.port) as idling,
    ):
        slow.send(b"GET / HTTP/1.1\r\n")
        assert slow.answer().status == 408
        assert idling.ended()


def test_a_request_whose_head_is_half_here_when_draining_is_answered(relay: RelayProcess) -> None:
    # the rest of its head was thrown away
    with RawClient(relay.port) as client, RawClient(relay.port) as probe:
        client.send(b"GET /health HTTP/1.1\r\n")
        probe.send(get("/health"))
        probe.answer()
        relay.tell(control.StopAccepting())
        assert probe.ended()
        client.send(b"Host: x\r\n\r\n")
        assert client.answer().status == 200
        assert client.answer().header("connection") == "close"


# Clients that leave


def test_a_client_that_leaves_a_stuck_upload_is_noticed() -> None:
    # reading was stopped while the engine took nothing, so its leaving was not seen
    def play(connection: Played) -> None:
        connection.head()
        connection.hold()

    patience = {"idle-timeout": "1s", "first-token-timeout": "1s"}
    with (
        PlayedEngine(play, receive_buffer=4096) as engine,
        RelayProcess(engine.url, patience) as relay,
        RawClient(relay.port, patience=0.5) as client,
    ):
        with pytest.raises(TimeoutError):
            client.send(UPLOAD % 100_000_000 + bytes(30_000_000))
        in_flight(relay, 1)
        client.reset()
        in_flight(relay, 0)


def test_a_pipelining_client_that_leaves_reaches_the_engine(engine: ScriptedEngine, relay: RelayProcess) -> None:
    # with a second request waiting the client was not read, so its leaving was not seen
    with RawClient(relay.port) as client:
        client.post(CHAT, chat({"hang": "headers"}))
        client.send(get("/health"))
        engine.wait(lambda seen: any(one.complete is not None for one in seen))
        client.reset()
        engine.wait(lambda seen: seen[0].disconnected is not None, within=5)


def test_a_tunnel_whose_client_leaves_ends_at_the_engine(engine: ScriptedEngine, relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.send(WEBSOCKET)
        client.read_raw()
        before = engine.connections
        client.reset()
        until(lambda: engine.connections < before, "the tunnel's end", 5)
        in_flight(relay, 0)


def test_clients_that_leave_at_every_byte_leave_nothing(relay: RelayProcess) -> None:
    until(lambda: relay.hellos > 0, "the observer's channel")
    before = relay.descriptors()
    body = json.dumps(chat({"tokens": 3, "gap": 0.002})).encode()
    whole = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    for cut in range(1, len(whole) + 1, 3):
        client = RawClient(relay.port)
        client.send(whole[:cut])
        (client.reset if cut % 2 else client.close)()
    for _ in range(50):
        client = RawClient(relay.port)
        client.send(whole + get("/health") + whole)
        client.read(200)
        client.reset()
    in_flight(relay, 0)
    until(lambda: not relay.live, "nothing live", 5)
    until(lambda: relay.descriptors() == before, "the end of every connection", 8)
    assert {one.outcome for one in relay.timelines} <= {Outcome.COMPLETED, Outcome.CANCELLED}


# Pipelines


def test_a_head_behind_a_large_body_is_not_called_too_large(relay: RelayProcess) -> None:
    # the body in the same read was counted as a part of it
    with RawClient(relay.port) as client:
        body = json.dumps(chat(stream=False, padding="x" * 120_000)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        client.send(head + body + b"GET /health HT")
        client.answer()
        client.send(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer(1).status == 200


def test_the_last_request_of_a_pipeline_is_answered(relay: RelayProcess) -> None:
    # its Connection: close was taken for the first one's
    with RawClient(relay.port) as client:
        client.send(get("/health") + get("/v1/models", "Connection: close"))
        assert [client.answer(number).status for number in range(2)] == [200, 200]


def test_a_websocket_behind_another_request_is_answered(relay: RelayProcess) -> None:
    # the connection was closed though the upgrade was only waiting for its turn
    with RawClient(relay.port) as client:
        client.send(get("/health") + WEBSOCKET)
        data = b""
        while b" 101 " not in data:
            more = client.read_raw()
            assert more, data
            data += more


def test_a_request_behind_a_refused_one_does_not_reach_the_engine(engine: ScriptedEngine) -> None:
    with RelayProcess(engine.url, {"max-body": "1KiB"}) as relay, RawClient(relay.port) as client:
        client.send(get("/health"))  # so that there is a connection to the engine
        client.answer()
        client.send(post(2000) + get("/v1/models"))
        assert client.answer(1).status == 413
        assert client.ended()
        with RawClient(relay.port) as next_one:  # whatever was begun before it is at the engine by now
            next_one.send(get("/health"))
            assert next_one.answer().status == 200
        assert engine.exchanges("/v1/models") == []


# Refusals


def test_an_error_to_a_head_request_has_no_body() -> None:
    # the next answer on the connection would begin with it
    with RelayProcess(f"http://127.0.0.1:{free_port()}") as relay, RawClient(relay.port) as client:
        client.send(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
        received = client.read_raw()
        while b"\r\n\r\n" not in received:
            received += client.read_raw()
        head, _, rest = received.partition(b"\r\n\r\n")
        assert b" 502 " in head
        assert rest == b"" or b"connection: close" in head


def test_a_client_is_read_on_after_its_upload_found_no_engine() -> None:
    # reading was stopped for the early body, and nobody started it again
    with RelayProcess(f"http://127.0.0.1:{free_port()}") as relay, RawClient(relay.port, patience=4) as client:
        for number in range(2):
            client.post("/v1/embeddings", {"input": "x"})
            assert client.answer(number).status == 502


def test_a_refused_upload_is_told_so(engine: ScriptedEngine) -> None:
    # closing with unread bytes makes a reset that overtakes the answer
    with RelayProcess(engine.url, {"max-body": "64KiB"}) as relay:
        for _ in range(10):
            with RawClient(relay.port) as client:
                with contextlib.suppress(OSError):  # not all of it is taken
                    client.send(post(10_000_000, "/upload"))
                assert client.answer().status == 413


def test_a_length_over_the_limit_is_refused_without_100_continue(engine: ScriptedEngine) -> None:
    with RelayProcess(engine.url, {"max-body": "64KiB"}) as relay, RawClient(relay.port) as client:
        client.send(b"POST /upload HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10000000\r\n\r\n")
        assert client.answer().status == 413
        assert b" 100 " not in client.received
        assert engine.exchanges("/upload") == []


# What the engine is told


def test_a_client_cannot_take_the_host_out_of_its_request(engine: ScriptedEngine, relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.send(get("/health", "Connection: host, keep-alive"))
        assert client.answer().status == 200
        assert engine.exchanges("/health")[0].header("host") == "x"


def test_a_request_of_http_1_0_has_a_host_at_the_engine(engine: ScriptedEngine, relay: RelayProcess) -> None:
    with RawClient(relay.port) as client:
        client.send(b"GET /health HTTP/1.0\r\n\r\n")
        while client.read():
            pass
        assert engine.exchanges("/health")[0].header("host")


def test_the_absolute_form_reaches_the_engine_as_a_path_behind_its_prefix(engine: ScriptedEngine) -> None:
    with RelayProcess(engine.url + "/prefix") as relay, RawClient(relay.port) as client:
        client.send(get("http://x/health"))
        client.answer()
        assert [one.path for one in engine.exchanges()] == ["/prefix/health"]
