"""The control channel between the supervisor and each child: one message a packet, file descriptors beside it.

1. The channel is an AF_UNIX SOCK_SEQPACKET pair; a packet is one message in MessagePack, with at most a few
   descriptors (SCM_RIGHTS), which then belong to the receiver.
2. A child is started as ``python -m exporter.relay --control-fd N`` (or ``exporter.observer``) and calls ``adopt``.
3. The first message to a child is its Start; it answers Ready once it serves.
4. End of the channel means that the supervisor is gone: the child exits at once. The other way round it means that
   the child ends.
5. Nothing here waits: what cannot be sent now is queued, and a peer that does not read is given up.
"""

import array
import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from exporter.config import Config

MAX_PACKET = 128 * 1024
MAX_FDS = 4
MAX_QUEUED = 1024
_INT = array.array("i").itemsize
_PR_SET_PDEATHSIG = 1


class StartRelay(msgspec.Struct, frozen=True, tag=True):
    """To a relay, first: who it is. With it comes the listening socket.

    ``index`` is its slot (0 to workers - 1), ``boot`` tells its incarnations apart.
    """

    config: Config
    index: int
    boot: str


class StartObserver(msgspec.Struct, frozen=True, tag=True):
    """To the observer, first: the relays (index, boot) that run.

    With it come the web listening socket, then the memfd of its checkpoint, which outlives it.
    """

    config: Config
    relays: list[tuple[int, str]]


class Channel(msgspec.Struct, frozen=True, tag=True):
    """To a relay and to the observer: with it comes one end of a new SOCK_STREAM pair between the two.

    ``relay`` and ``boot`` are the relay's. It replaces any earlier channel of that slot.
    """

    relay: int
    boot: str


class RelayGone(msgspec.Struct, frozen=True, tag=True):
    """To the observer: this incarnation of a relay ended; what it left live has failed."""

    relay: int
    boot: str


class Facts(msgspec.Struct, frozen=True, tag=True):
    """To the observer, when something of it changed: what the health port answers, and restarts by process."""

    ready: bool
    healthy: bool
    draining: bool
    drained: bool
    upstream_up: bool
    restarts: dict[str, int]


class Drain(msgspec.Struct, frozen=True, tag=True):
    """To a relay: an end is coming; go on accepting, but answer with ``Connection: close``."""


class StopAccepting(msgspec.Struct, frozen=True, tag=True):
    """To a relay: close the listening socket and idle client connections, finish what runs."""


class Abort(msgspec.Struct, frozen=True, tag=True):
    """To a relay: end what still runs, now."""


class Finish(msgspec.Struct, frozen=True, tag=True):
    """To a relay or the observer: send what is left (records, spans), then exit with 0."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """From a child: it serves."""


class RelayStatus(msgspec.Struct, frozen=True, tag=True):
    """From a relay, when changed, at most 4 times a second; at once when draining and ``in_flight`` reaches 0."""

    in_flight: int
    accepting: bool


class ChannelLost(msgspec.Struct, frozen=True, tag=True):
    """From a relay: its channel to the observer ended. If that observer still lives, a new channel is needed."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """From the observer: everything is flushed, it exits."""


ToChild = StartRelay | StartObserver | Channel | RelayGone | Facts | Drain | StopAccepting | Abort | Finish
FromChild = Ready | RelayStatus | ChannelLost | Finished
Message = ToChild | FromChild

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def pair() -> tuple[socket.socket, socket.socket]:
    """A new control channel: the supervisor's end and the child's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def adopt(fd: int) -> socket.socket:
    """Become the child at the other end: die with the supervisor and leave terminal signals to it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    return sock


def _die_with_parent() -> None:
    """Even where an event loop that hangs would never see the end of the channel. Only Linux has this."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


class Control:
    """One end of a control channel on the running event loop.

    ``on_message`` gets each message with its descriptors, which it owns. ``on_close`` is called once, when the other
    end is gone or was given up, not after ``close``.
    """

    def __init__(
        self, sock: socket.socket, on_message: Callable[[Message, list[int]], None], on_close: Callable[[], None]
    ) -> None:
        """Take over ``sock`` and begin to listen."""
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        self._sock = sock
        self._on_message = on_message
        self._on_close = on_close
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._sock.fileno() < 0

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send now or as soon as possible; the descriptors may be closed by the caller right after."""
        packet = _encoder.encode(message)
        if len(packet) > MAX_PACKET:
            raise ValueError(f"{type(message).__name__} of {len(packet)} bytes, at most {MAX_PACKET} fit in a packet")
        if self.closed:
            return
        if self._queue or not self._try(packet, fds):
            self._enqueue(packet, fds)

    def close(self) -> None:
        """Close this end; what is queued is lost."""
        if self.closed:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()

    def _enqueue(self, packet: bytes, fds: Sequence[int]) -> None:
        if self.closed:
            return
        if len(self._queue) >= MAX_QUEUED:
            self._lost()
            return
        if not self._queue:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._queue.append((packet, [os.dup(fd) for fd in fds]))

    def _try(self, packet: bytes, fds: Sequence[int]) -> bool:
        """Whether the packet is dealt with: sent, or lost with the channel."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([packet], rights)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._lost()
        return True

    def _writable(self) -> None:
        while self._queue:
            packet, fds = self._queue[0]
            if not self._try(packet, fds):
                return
            if self.closed:
                return
            self._queue.popleft()
            _close_all(fds)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        while not self.closed:
            try:
                packet, fds, flags = _receive(self._sock)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet, fds, flags = b"", [], 0
            self._received(packet, fds, flags)

    def _received(self, packet: bytes, fds: list[int], flags: int) -> None:
        if not packet or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            _close_all(fds)
            self._lost()
            return
        try:
            message = _decoder.decode(packet)
        except msgspec.MsgspecError:
            _close_all(fds)
            self._lost()
            return
        self._on_message(message, fds)

    def _lost(self) -> None:
        if not self.closed:
            self.close()
            self._on_close()


def _receive(sock: socket.socket) -> tuple[bytes, list[int], int]:
    """One packet, its descriptors and flags; socket.recv_fds of CPython 3.11 loses the close-on-exec flag."""
    packet, rights, flags, _ = sock.recvmsg(MAX_PACKET, socket.CMSG_SPACE(MAX_FDS * _INT), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _INT])
    return packet, list(fds), flags


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
