"""The control channel: messages and descriptors between real sockets, on both event loops."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest
import uvloop

from exporter import config, control
from exporter.control import Control, Message

CONFIG = config.load({}, None, {"upstream": "http://127.0.0.1:8000", "label-header": "tenant=X-Tenant"})
MESSAGES: list[Message] = [
    control.StartRelay(CONFIG, 1, "b00t"),
    control.StartObserver(CONFIG, [(0, "a"), (1, "b")]),
    control.Channel(0, "a"),
    control.RelayGone(0, "a"),
    control.Facts(True, True, False, False, True, {"relay": 2}),
    control.Drain(),
    control.StopAccepting(),
    control.Abort(),
    control.Finish(),
    control.Ready(),
    control.RelayStatus(3, True),
    control.Finished(),
]


class End:
    """One end with what it heard."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[Message] = []
        self.fds: list[int] = []
        self.closed = 0
        self.control = Control(sock, self.hear, self.end)

    def hear(self, message: Message, fds: list[int]) -> None:
        self.messages.append(message)
        self.fds += fds

    def end(self) -> None:
        self.closed += 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> object:
    with asyncio.Runner(loop_factory=request.param) as one:
        yield one


def test_every_message_arrives_as_it_was_sent(runner: asyncio.Runner) -> None:
    async def talk() -> None:
        left, right = map(End, control.pair())
        for message in MESSAGES:
            left.control.send(message)
        await until(lambda: len(right.messages) == len(MESSAGES))
        assert right.messages == MESSAGES
        left.control.close()
        await until(lambda: right.closed == 1)
        assert left.closed == 0
        assert right.control.closed

    runner.run(talk())


def test_a_descriptor_works_at_the_other_end_after_the_sender_closed_it(runner: asyncio.Runner) -> None:
    async def talk() -> None:
        left, right = map(End, control.pair())
        here, there = socket.socketpair()
        with here:
            left.control.send(control.Channel(0, "a"), [there.fileno()])
            there.close()
            await until(lambda: bool(right.fds))
            with socket.socket(fileno=right.fds[0]) as received:
                assert not os.get_inheritable(received.fileno())
                received.sendall(b"hello")
                assert here.recv(10) == b"hello"
        left.control.close()
        right.control.close()

    runner.run(talk())


def test_what_a_slow_reader_cannot_take_yet_is_queued_in_order_with_its_descriptors(runner: asyncio.Runner) -> None:
    async def talk() -> None:
        ours, theirs = control.pair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        left = End(ours)
        reading, writing = os.pipe()
        for number in range(500):
            left.control.send(control.RelayStatus(number, True))
        left.control.send(control.Channel(0, "a"), [writing])
        os.close(writing)
        right = End(theirs)
        await until(lambda: len(right.messages) == 501)
        assert right.messages[:500] == [control.RelayStatus(number, True) for number in range(500)]
        os.write(right.fds[0], b"x")
        assert os.read(reading, 1) == b"x"
        os.close(reading)
        os.close(right.fds[0])
        left.control.close()
        right.control.close()

    runner.run(talk())


def test_a_peer_that_never_reads_is_given_up_not_waited_for(runner: asyncio.Runner) -> None:
    async def talk() -> None:
        ours, theirs = control.pair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        left = End(ours)
        with theirs:
            for number in range(control.MAX_QUEUED + 500):
                left.control.send(control.RelayStatus(number, True))
            assert left.closed == 1
            left.control.send(control.Drain())  # to nobody

    runner.run(talk())


@pytest.mark.parametrize("packet", [b"nonsense", msgspec.msgpack.encode({"type": "Unheard"}), b"\xc1" * 200_000])
def test_a_packet_that_is_no_message_ends_the_channel(packet: bytes) -> None:
    async def talk() -> None:
        ours, theirs = control.pair()
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024 * 1024)
            left = End(ours)
            try:
                theirs.send(packet)
            except OSError:  # too large for this kernel's packets
                left.control.close()
                return
            await until(lambda: left.closed == 1)
            assert not left.messages
            assert left.control.closed

    asyncio.run(talk())


def test_a_message_that_fits_no_packet_is_refused_where_it_is_sent() -> None:
    async def talk() -> None:
        ours, theirs = control.pair()
        left = End(ours)
        with theirs, pytest.raises(ValueError, match="at most"):
            left.control.send(control.RelayGone(0, "x" * control.MAX_PACKET))
        left.control.close()

    asyncio.run(talk())


def test_a_child_dies_with_its_supervisor_even_when_it_never_looks_at_the_channel() -> None:
    ours, theirs = control.pair()
    child = (
        "import sys, signal; from exporter import control; sock = control.adopt(int(sys.argv[1]));"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, flush=True); signal.pause()"
    )
    parent = (
        "import subprocess, sys; n = sys.argv[1];"
        "one = subprocess.Popen([sys.executable, '-c', sys.argv[2], n], pass_fds=[int(n)]); one.wait()"
    )
    with (
        ours,
        theirs,
        subprocess.Popen(
            [sys.executable, "-c", parent, str(theirs.fileno()), child],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
        ) as process,
    ):
        theirs.close()
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        process.kill()
        process.wait()
        ours.settimeout(10)
        assert ours.recv(1) == b""  # the last holder of the other end is gone
