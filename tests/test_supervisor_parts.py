"""The supervisor's parts: backoff, state, waiting, sockets, the checkpoint's file and the small HTTP server."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import pytest
from support.ports import free_port, free_ports

from exporter import config
from exporter.config import Address
from exporter.control import RelayStatus
from exporter.supervisor import http
from exporter.supervisor.backoff import Backoff
from exporter.supervisor.changes import Changes
from exporter.supervisor.health import Health
from exporter.supervisor.http import Server
from exporter.supervisor.rhythm import Rhythm
from exporter.supervisor.sockets import ListenError, is_local, listen, memory_file, open_all
from exporter.supervisor.state import State


def test_delays_double_to_a_limit_and_begin_anew_after_a_long_life() -> None:
    backoff = Backoff(Rhythm())
    assert [backoff.after(0.0) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.after(29.9) == 5.0
    assert backoff.after(30.0) == 0.1
    assert backoff.after(1.0) == 0.2


def state(**changes: object) -> State:
    made = State("http://engine:8000", 10.0, relays={0: RelayStatus(0, True)}, engine_seen=100.0)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("made", "now", "ready", "healthy"),
    [
        (state(), 110.0, None, None),
        (state(), 110.1, "no engine at http://engine:8000 for 10 s", None),
        (state(engine_seen=None), 100.0, "no engine at http://engine:8000 yet", None),
        (state(relays={}), 100.0, "no relay is accepting", "no relay is alive"),
        (state(relays={0: RelayStatus(1, False)}), 100.0, "no relay is accepting", None),
        (state(relays={0: RelayStatus(1, False), 1: RelayStatus(0, True)}), 100.0, None, None),
        (state(draining=True), 100.0, "draining", None),
        (state(draining=True, drained=True, relays={}), 100.0, "drained", None),
    ],
)
def test_what_follows_from_what_is_known(made: State, now: float, ready: str | None, healthy: str | None) -> None:
    assert made.unready(now) == ready
    assert made.unhealthy() == healthy
    facts = made.facts(now)
    assert (facts.ready, facts.healthy) == (ready is None, healthy is None)


def test_idle_means_neither_accepting_nor_in_flight() -> None:
    assert state(relays={}).idle()
    assert state(relays={0: RelayStatus(0, False)}).idle()
    assert not state(relays={0: RelayStatus(0, False), 1: RelayStatus(2, False)}).idle()
    assert not state().idle()
    assert state(relays={0: RelayStatus(1, False), 1: RelayStatus(2, False)}).in_flight() == 3


def test_waiting_ends_with_the_change_or_with_its_limit() -> None:
    async def wait() -> None:
        changes = Changes()
        seen: list[int] = []
        waiting = asyncio.create_task(changes.until(lambda: bool(seen), 10))
        await asyncio.sleep(0)
        changes.tell()
        seen.append(1)
        changes.tell()
        assert await waiting
        assert await changes.until(lambda: True, 0)
        assert not await changes.until(lambda: False, 0.01)

    asyncio.run(wait())


def test_an_address_that_is_taken_or_not_ours_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"^--listen: cannot listen on 127.0.0.1:{port}: Address already in use$"):
            listen("listen", Address("127.0.0.1", port))
    with pytest.raises(ListenError, match=r"--web.listen-address: cannot listen on 192.0.2.1:80"):
        listen("web.listen-address", Address("192.0.2.1", 80))
    with pytest.raises(ListenError, match=r"cannot listen on no-such-host.invalid:80"):
        listen("listen", Address("no-such-host.invalid", 80))


def test_the_sockets_opened_before_a_failure_are_closed() -> None:
    first, second = free_ports(2)
    loaded = config.load({}, None, {
        "upstream": "http://127.0.0.1:1", "listen": f"127.0.0.1:{first}",
        "web.listen-address": f"127.0.0.1:{second}", "health.listen-address": "192.0.2.1:1",
    })  # fmt: skip
    with pytest.raises(ListenError, match=r"health.listen-address"):
        open_all(loaded)
    for port in (first, second):
        listen("listen", Address("127.0.0.1", port)).close()


def test_ipv6_and_both_at_once() -> None:
    port = free_port()
    try:
        listener = listen("listen", Address("::", port))
    except ListenError as error:
        assert "Address family not supported" in str(error)  # noqa: PT017 - a machine without IPv6
        return
    with listener:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port)):
                pass


@pytest.mark.parametrize("memfd", [True, False])
def test_the_checkpoint_file_has_no_name_and_is_seen_through_another_descriptor(
    memfd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not memfd:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with memory_file() as file:
        assert not os.get_inheritable(file.fileno())
        other = os.dup(file.fileno())
        os.pwrite(other, b"totals", 0)
        os.close(other)
        assert os.pread(file.fileno(), 10, 0) == b"totals"


@pytest.mark.parametrize(
    ("peer", "own", "local"),
    [
        (("127.0.0.1", 1), ("127.0.0.1", 2), True),
        (("127.9.9.9", 1), ("127.0.0.1", 2), True),
        (("::1", 1, 0, 0), ("::1", 2, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), ("::ffff:127.0.0.1", 2, 0, 0), True),
        (("10.0.0.7", 1), ("10.0.0.7", 2), True),
        (("10.0.0.8", 1), ("10.0.0.7", 2), False),
        (("128.0.0.1", 1), ("10.0.0.7", 2), False),
        ("", "", False),
        (None, None, False),
    ],
)
def test_who_is_local(peer: object, own: object, local: bool) -> None:
    assert is_local(peer, own) is local


class Drains:
    """Counts the drains that were asked for."""

    def __init__(self, made: State) -> None:
        self.count = 0
        self.state = made

    def begin(self) -> None:
        self.count += 1


@contextlib.asynccontextmanager
async def served(made: State, drains: Drains) -> AsyncIterator[tuple[Server, int]]:
    loop = asyncio.get_running_loop()
    health = Health(made, Changes(), Rhythm(drain_begins_within=0.01), drains.begin, lambda: 100.0)
    server = Server(health.answer)
    listening = await loop.create_server(server.connection, "127.0.0.1", 0)
    try:
        yield server, listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await server.close()


def talk(data: bytes, made: State | None = None, *, cuts: int = 0) -> tuple[bytes, Drains]:
    """What a client that sends these bytes, whole or cut into single ones, gets until the server closes."""

    async def exchange() -> tuple[bytes, Drains]:
        used = made or state()
        drains = Drains(used)
        async with served(used, drains) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in [data[i : i + cuts] for i in range(0, len(data), cuts)] if cuts else [data]:
                writer.write(piece)
                await asyncio.sleep(0)
            got = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return got, drains

    return asyncio.run(exchange())


CLOSE = b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("cuts", [0, 1, 7])
def test_an_answer_on_the_wire(cuts: int) -> None:
    got, _ = talk(b"GET /-/healthy?verbose=1" + CLOSE, cuts=cuts)
    assert got == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 8\r\n"
        b"Cache-Control: no-store\r\nConnection: close\r\n\r\nhealthy\n"
    )


def test_a_head_request_gets_the_head_alone() -> None:
    got, _ = talk(b"HEAD /-/ready" + CLOSE)
    assert got.endswith(b"Content-Length: 6\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n")


def test_one_connection_takes_many_requests_one_after_the_other() -> None:
    async def exchange() -> None:
        made = state()
        async with served(made, Drains(made)) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3):
                writer.write(b"GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"200 OK" in head
                assert b"keep-alive" in head
                assert await reader.readexactly(6) == b"ready\n"
            writer.close()

    asyncio.run(exchange())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET /-/ready HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", b"400"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 9000, b"431"),
        (b"GET /-/ready HTTP/1.1\r\nX: " + b"a" * 9000, b"431"),
        (b"POST /-/drain HTTP/1.1\r\nContent-Length: 9000\r\n\r\n" + b"a" * 9000, b"431"),
        (b"DELETE /-/drain" + CLOSE, b"405"),
        (b"GET /" + CLOSE, b"404"),
        (b"GET /-/drained" + CLOSE, b"503"),
    ],
)
def test_what_is_refused(data: bytes, status: bytes) -> None:
    got, drains = talk(data)
    assert got.split(b" ")[1] == status
    assert drains.count == 0


def test_a_drain_is_begun_by_a_local_peer_but_by_no_web_page() -> None:
    got, drains = talk(b"POST /-/drain" + CLOSE)
    assert (got.split(b" ")[1], drains.count) == (b"202", 1)
    got, drains = talk(b"POST /-/drain HTTP/1.1\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n")
    assert (got.split(b" ")[1], drains.count) == (b"403", 0)


def test_a_request_before_the_answer_to_the_last_one_ends_the_connection() -> None:
    got, _ = talk(b"GET /-/drained HTTP/1.1\r\n\r\nGET /-/ready HTTP/1.1\r\n\r\n", state(draining=True))
    assert got == b""


def test_a_client_that_is_slow_to_ask_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.05)
    with contextlib.suppress(ConnectionResetError):
        assert talk(b"GET /-/re")[0] == b""


def test_whoever_hoards_connections_cannot_keep_a_probe_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 4)

    async def exchange() -> None:
        made = state()
        async with served(made, Drains(made)) as (server, port):
            hoard = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /-/ready" + CLOSE)
            assert (await reader.read()).endswith(b"ready\n")
            assert len(server.connections) <= 4
            for _, each in (*hoard, (reader, writer)):
                each.close()

    asyncio.run(exchange())
