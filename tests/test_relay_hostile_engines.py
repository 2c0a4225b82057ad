"""An engine may say anything at any moment: no client pays for it with another's answer, a hang or a lost error."""

import contextlib
import json
import socket
import threading

import pytest
from support.played_engine import Played, PlayedEngine, answer, get
from support.raw import CHAT, RawClient, chat
from support.relay import RelayProcess
from support.waiting import until

OK = answer()
UPLOAD = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
EVENTS = "Content-Type: text/event-stream"


def upload(client: RawClient, size: int) -> None:
    with contextlib.suppress(OSError):  # who is answered early may not get it all away
        client.send(UPLOAD % size + bytes(size))


def test_bytes_behind_an_answer_never_begin_another_clients_answer() -> None:
    # a parser left in the middle of a head must not go to the pool
    def play(relay: Played) -> None:
        first = relay.number == 0
        relay.head()
        relay.send(OK + (b"HTTP/1.1 200 OK\r\nX-Smuggled: yes\r\n" if first else b""))
        while True:
            relay.head()
            relay.send(b"X-Rest: 1\r\nContent-Length: 6\r\n\r\nSECRET" if first else OK)

    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay:
        with RawClient(relay.port) as one:
            one.send(get("/one"))
            assert one.answer().body == b"{}"
        with RawClient(relay.port) as two:
            two.send(get("/two"))
            assert two.answer().body == b"{}"
            assert two.answer().header("x-smuggled") is None


def test_of_two_answers_in_one_read_the_client_gets_the_first() -> None:
    def play(relay: Played) -> None:
        relay.head()
        relay.send(OK + answer(b"bad"))

    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.send(get())
        assert client.answer().body == b"{}"
        assert b"bad" not in client.received


@pytest.mark.parametrize("size", [2_500_000, 2_800_000, 4_000_000])
def test_a_client_whose_upload_was_answered_unread_is_served_on_or_told_to_close(size: int) -> None:
    # the engine's connection went back with a part of the body queued, and the client was never read again
    def play(relay: Played) -> None:
        data = relay.head()
        if b"/next" not in data:
            relay.hold(0.3)
            relay.send(answer(b"no", status="400 Bad Request"))
            relay.hold(0.3)
        while b"/next" not in data:
            data = data[-10:] + relay.read()
        relay.send(OK)

    with (
        PlayedEngine(play, receive_buffer=4096) as engine,
        RelayProcess(engine.url) as relay,
        RawClient(relay.port, patience=5) as client,
    ):
        client.post("/v1/files", bytes(size))
        refusal = client.answer()
        assert refusal.status == 400
        if refusal.header("connection") != "close":
            client.send(get("/next"))
            assert client.answer(1).status == 200


def test_an_answer_nobody_follows_may_take_longer_than_a_first_token() -> None:
    # it was cut though bytes flowed
    def play(relay: Played) -> None:
        relay.head()
        relay.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n")
        for _ in range(12):
            relay.send(b"x")
            relay.hold(0.1)

    with (
        PlayedEngine(play) as engine,
        RelayProcess(engine.url, {"first-token-timeout": "300ms"}) as relay,
        RawClient(relay.port) as client,
    ):
        client.post(CHAT, chat())
        assert client.answer().complete


def test_a_count_beyond_all_memory_cuts_no_answer() -> None:
    # one number made a list of a gap for each alleged token
    def event(tokens: int) -> bytes:
        usage = {"prompt_tokens": 1, "completion_tokens": tokens}
        data = {"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": usage}
        return b"data: " + json.dumps(data).encode() + b"\n\n"

    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

    def play(relay: Played) -> None:
        relay.head()
        relay.send(answer(event(1) + event(10**15) + finish, EVENTS))

    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.post(CHAT, chat(stream_options={"include_usage": True}))
        assert client.answer().complete
        relay.ended(1)


def test_a_count_that_no_record_can_hold_spoils_neither_the_connection_nor_the_records() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 10**30}
    choice = {"index": 0, "message": {}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": usage}).encode()

    def play(relay: Played) -> None:
        while True:
            followed = CHAT.encode() in relay.head()
            relay.send(answer(body, "Content-Type: application/json") if followed else OK)

    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.post(CHAT, chat(stream=False))
        assert client.answer().complete
        client.send(get("/next"))
        assert client.answer(1).status == 200
        relay.ended(1)


def test_an_answer_that_comes_before_the_upload_is_over_reaches_the_client() -> None:
    # the engine's 413 was lost where our next write failed first
    def play(relay: Played) -> None:
        relay.head()
        relay.send(answer(b"no", "Connection: close", status="413 Content Too Large"))
        relay.reset()

    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay:
        for _ in range(10):
            with RawClient(relay.port) as client:
                upload(client, 10_000_000)
                assert client.answer().status == 413


def test_an_early_answer_says_that_its_connection_closes() -> None:
    def play(relay: Played) -> None:
        relay.head()
        relay.send(answer(b"no", status="400 Bad Request"))
        relay.hold()

    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.send(UPLOAD % 1000 + b"half")
        assert (client.answer().status, client.answer().header("connection")) == (400, "close")


def test_an_answer_without_length_that_ends_with_a_reset_is_cut_for_the_client_too() -> None:
    def play(relay: Played) -> None:
        relay.head()
        relay.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        seen.wait(10)
        relay.reset()

    seen = threading.Event()
    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.send(get())
        while b"half" not in client.received:
            client.read()
        seen.set()
        assert not client.answer().complete


def test_a_connection_header_cannot_take_the_length_out_of_an_answer() -> None:
    def play(relay: Played) -> None:
        while True:
            relay.head()
            relay.send(answer(b"{}", "Connection: content-length"))

    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port, patience=3) as client:
        client.send(get())
        assert client.answer().complete


def test_a_connection_made_for_a_client_that_left_is_as_good_as_any() -> None:
    # its first use was not replayed when the engine had closed it, as if it were fresh
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [stack.enter_context(socket.socket()) for _ in range(4)]
        for filler in fillers:  # the relay's connection has to wait behind these
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        names = {filler.getsockname() for filler in fillers}
        relay = stack.enter_context(RelayProcess(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        with RawClient(relay.port) as gone:
            gone.send(get("/gone"))
            until(lambda: relay.status is not None and relay.status.in_flight == 1, "the request")
        until(lambda: relay.status is not None and relay.status.in_flight == 0, "its end")
        for filler in fillers:
            filler.close()
        unwanted = _accept(stack, listener, names)
        client = stack.enter_context(RawClient(relay.port))
        client.send(get("/next"))
        assert b"/next" in unwanted.recv(65536)
        unwanted.close()
        fresh = _accept(stack, listener, names)
        assert b"/next" in fresh.recv(65536)
        fresh.sendall(OK)
        assert client.answer().status == 200


def _accept(stack: contextlib.ExitStack, listener: socket.socket, but: set[object]) -> socket.socket:
    """The next connection that is none of those."""
    listener.settimeout(10)
    while True:
        connection, name = listener.accept()
        stack.enter_context(connection)
        if name not in but:
            connection.settimeout(10)
            return connection


@pytest.mark.parametrize("path", ["/v1/embeddings", CHAT])
def test_an_engine_that_closes_after_each_answer_without_saying_so_costs_no_request(path: str) -> None:
    # 502 through us where a client that is connected directly would not have reused the connection, or tried again
    def play(relay: Played) -> None:
        relay.head()
        relay.send(OK)
        if relay.number == 0:
            relay.head()
            relay.close()

    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        for number in range(2):
            client.post(path, {"input": "x"})
            assert client.answer(number).status == 200
        assert engine.accepted == 2


def test_a_request_that_killed_its_engine_after_long_work_is_not_sent_again() -> None:
    # a poison prompt would kill two engines, and minutes of work would be done twice
    def play(relay: Played) -> None:
        relay.head()
        relay.send(OK)
        relay.head()
        relay.hold(1.2)
        relay.close()

    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        client.post(CHAT, chat(stream=False))
        assert client.answer().status == 200
        client.post(CHAT, chat(stream=False))
        assert client.answer(1).status == 502
        assert len(engine.requests) == 2


def test_an_engine_that_stops_reading_an_upload_is_timed_out() -> None:
    def play(relay: Played) -> None:
        relay.head()
        relay.hold()

    patience = {"idle-timeout": "500ms", "first-token-timeout": "500ms"}
    with (
        PlayedEngine(play, receive_buffer=4096) as engine,
        RelayProcess(engine.url, patience) as relay,
        RawClient(relay.port) as client,
    ):
        sender = threading.Thread(target=upload, args=(client, 50_000_000), daemon=True)
        sender.start()
        assert client.answer().status == 504
        sender.join(10)


def test_a_stall_within_an_engines_early_answer_is_timed_out() -> None:
    # no time was looked at while the request was not complete
    def play(relay: Played) -> None:
        relay.head()
        relay.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        relay.hold()

    with (
        PlayedEngine(play) as engine,
        RelayProcess(engine.url, {"idle-timeout": "500ms"}) as relay,
        RawClient(relay.port, patience=5) as client,
    ):
        client.send(UPLOAD % 1000 + b"half")
        assert not client.answer().complete


def test_an_engine_may_have_an_address_of_ipv6() -> None:
    def play(relay: Played) -> None:
        relay.head()
        relay.send(OK)

    with (
        PlayedEngine(play, family=socket.AF_INET6) as engine,
        RelayProcess(engine.url) as relay,
        RawClient(relay.port) as client,
    ):
        client.send(get())
        assert client.answer().status == 200
