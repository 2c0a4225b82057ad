"""What one peer can make the relay hold or do is bounded: bodies, answers, heads, labels, connections, records."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest
from support.played_engine import Played, PlayedEngine, answer, get
from support.raw import CHAT, RawClient, chat
from support.relay import RelayProcess, peak_kib, resident_kib
from support.scripted_engine import ScriptedEngine
from support.short_relay import BUFFER_LIMIT
from support.waiting import DeadlineError, until

from exporter import catalog, control
from exporter.wire import heads

MIB = 1024
"""In KiB, which is what memory is given in here."""


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


def stays_under(relay: RelayProcess, limit: int, seconds: float = 0.5) -> None:
    """The peak of the relay's memory, in KiB, and what comes to it in so many seconds without a sign from outside."""
    with contextlib.suppress(DeadlineError):
        until(lambda: peak_kib(relay.pid) > limit, "memory over the limit", seconds)
    assert peak_kib(relay.pid) <= limit


# Bodies and answers


def test_answers_behind_one_that_is_not_taken_are_left_at_the_engine() -> None:
    # they were read without limit
    huge = 128 * MIB * 1024

    def play(relay: Played) -> None:
        while True:
            if b" /huge" in relay.head():
                relay.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % huge)
                for _ in range(huge >> 20):
                    relay.send(bytes(1 << 20))
            else:
                relay.send(answer(bytes(100_000)))

    with (
        PlayedEngine(play) as engine,
        RelayProcess(engine.url) as relay,
        RawClient(relay.port, receive_buffer=4096) as slow,
    ):
        limit = peak_kib(relay.pid) + 32 * MIB
        for number in range(80):
            slow.send(get("/some"))
            try:
                until(lambda number=number: engine.asked("/some") > number, "the request", 0.3)  # type: ignore[misc]
            except DeadlineError:
                break
        slow.send(get("/huge"))
        stays_under(relay, limit, 1)
        while not engine.asked("/huge"):  # the slow client takes what it asked for, all but the last
            slow.read()
        stays_under(relay, limit, 1)


def test_an_upload_to_an_engine_that_does_not_read_is_held_back() -> None:
    # the client was stopped for the engine, and then started again
    def play(relay: Played) -> None:
        relay.head()
        relay.hold()

    with (
        PlayedEngine(play, receive_buffer=4096) as engine,
        RelayProcess(engine.url, {"inspect-limit": "4MiB"}) as relay,
        RawClient(relay.port, patience=1) as client,
    ):
        limit = peak_kib(relay.pid) + 32 * MIB
        client.send(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT.encode())
        chunk = b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20))
        with pytest.raises(TimeoutError):
            client.send(chunk * 100)
        stays_under(relay, limit, 0.1)


def test_a_body_is_not_kept_once_it_cannot_be_sent_again() -> None:
    # it was kept for a replay for the whole life of its stream
    size = 8_000_000

    def play(relay: Played) -> None:
        received = len(relay.head())
        while received < size:
            received += len(relay.read())
        relay.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {}\n\n")
        relay.hold()

    body = json.dumps(chat(padding="x" * size)).encode()
    with PlayedEngine(play) as engine, RelayProcess(engine.url) as relay, contextlib.ExitStack() as clients:
        limit = resident_kib(relay.pid) + 32 * MIB
        for _ in range(8):
            client = clients.enter_context(RawClient(relay.port))
            client.post(CHAT, body)
            while b"data:" not in client.received:
                client.read()
        until(lambda: resident_kib(relay.pid) < limit, "the bodies' end", 4)


def test_held_bodies_are_limited_over_all(engine: ScriptedEngine) -> None:
    # the limit was only looked at when a request began
    with (
        RelayProcess(engine.url, module="tests.support.short_relay") as relay,
        contextlib.ExitStack() as opened,
    ):
        limit = peak_kib(relay.pid) + BUFFER_LIMIT // 1024 * 2  # a growing buffer allocates ahead
        clients = [opened.enter_context(RawClient(relay.port)) for _ in range(12)]
        for client in clients:
            client.send(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n".encode())
        for client in clients:
            client.send(bytes(9_900_000))
        stays_under(relay, limit)


def test_a_body_in_tiny_chunks_costs_its_size(engine: ScriptedEngine) -> None:
    # each chunk was an object of its own: 40 bytes for 2
    with RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        limit = peak_kib(relay.pid) + 24 * MIB
        client.send(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(40):
            client.send(b"2\r\nab\r\n" * 50_000)
        client.send(b"0\r\n\r\n")
        assert client.answer().status
        stays_under(relay, limit, 0)


# Heads


def test_many_connection_headers_cost_no_time() -> None:
    # it was quadratic: a head of 140 KB stopped the relay for 0.3 s
    def seconds(count: int) -> float:
        headers = [(b"connection", b"a%d" % number) for number in range(count)]
        begin = time.perf_counter()
        heads.end_to_end(headers)
        return time.perf_counter() - begin

    assert min(seconds(7000) for _ in range(3)) < 0.05


def test_a_head_over_the_limit_is_refused_even_when_it_comes_at_once(engine: ScriptedEngine) -> None:
    # the limit was only looked at when a read ended within the head
    with RelayProcess(engine.url) as relay, RawClient(relay.port) as client:
        with relay.frozen():
            client.send(get("/health", "A: " + "b" * 100_000))
        assert client.answer().status == 431


def test_a_label_headers_value_is_bounded(engine: ScriptedEngine) -> None:
    with RelayProcess(engine.url, {"label-header": "tenant=X-Tenant"}) as relay, RawClient(relay.port) as client:
        client.post(CHAT, chat(), "X-Tenant: " + "t" * 50_000)
        client.answer()
        (timeline,) = relay.ended(1)
        assert len(timeline.identity.labels[0]) <= 256


# Connections and records


def test_an_idle_connection_costs_little(engine: ScriptedEngine) -> None:
    with RelayProcess(engine.url) as relay, contextlib.ExitStack() as opened:

        def connect() -> None:
            client = opened.enter_context(RawClient(relay.port))
            client.send(get("/health"))
            client.answer()

        connect()
        before = resident_kib(relay.pid)
        for _ in range(400):
            connect()
        assert (resident_kib(relay.pid) - before) / 400 < 16


def test_an_observer_that_is_stuck_costs_a_bounded_amount_and_misses_no_count(engine: ScriptedEngine) -> None:
    count = 1500
    with RelayProcess(engine.url, observed=False) as relay:
        stuck, theirs = socket.socketpair()
        with stuck:
            relay.tell(control.Channel(0, "boot"), theirs.fileno())
            theirs.close()
            stuck.recv(10)  # then never again, and no acknowledgement
            limit = peak_kib(relay.pid) + 24 * MIB
            with RawClient(relay.port) as client:
                for number in range(count):
                    client.post(CHAT, chat({"tokens": 2}, model=f"m{number}" + "x" * 200))
                    client.answer(number)
            stays_under(relay, limit, 0)
            relay.observe()
            until(lambda: _told(relay) >= count, "every request", 10)
            assert _told(relay) == count


def _told(relay: RelayProcess) -> float:
    """How many requests the observer knows of, whole or as a count."""
    degraded = sum(value for (name, _), value in relay.tally.counters.items() if name == catalog.DEGRADED)
    return len(relay.timelines) + degraded
