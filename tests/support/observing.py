"""The real observer process under a supervisor and relays that a test plays."""

import array
import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec

from exporter import config, control, records
from exporter.config import Config
from exporter.records import Ack, Ended, Pulse
from support.exposition import Page
from support.ports import free_port
from support.processes import REPOSITORY
from support.waiting import until

FACTS = control.Facts(
    ready=True, healthy=True, draining=False, drained=False, upstream_up=True, restarts={"relay": 1, "observer": 0}
)
_LENGTH = struct.Struct(">I")


def configuration(**flags: str) -> Config:
    """A configuration whose upstream is a port where nobody listens, unless ``flags`` name one."""
    given = {"upstream": f"http://127.0.0.1:{free_port()}"} | {name.replace("_", "-"): flags[name] for name in flags}
    return config.load({}, None, given)


class PlayedRelay:
    """One incarnation of a relay: a ring of numbered messages, sent again until acknowledged."""

    def __init__(self, index: int = 0, boot: str = "first") -> None:
        self.index, self.boot, self.number = index, boot, 0
        self.zero = time.time() - time.monotonic()  # noqa: TID251 - the anchor that a relay sends
        self.acknowledged = 0
        self._ring: dict[int, records.Message] = {}
        self._sock: socket.socket | None = None
        self._listener: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def key(self) -> tuple[int, str]:
        return self.index, self.boot

    def connect(self, sock: socket.socket, *, catch_up: bool = True) -> None:
        """A new session: hello, what is not acknowledged, CaughtUp."""
        self.die()
        self._sock = sock
        now = time.monotonic()
        sock.sendall(records.frame(records.Hello(self.index, self.boot, os.getpid(), self.zero + now, now)))
        self._take(self._read_ack(sock))
        for message in list(self._ring.values()):
            sock.sendall(records.frame(message))
        if catch_up:
            self.caught_up()
        self._listener = threading.Thread(target=self._listen, args=[sock], daemon=True)
        self._listener.start()

    def caught_up(self) -> None:
        self.raw(records.frame(records.CaughtUp()))

    def send(self, message: Pulse | Ended) -> None:
        """Send the next message, numbered here; it is kept while there is no observer."""
        self.number += 1
        numbered = msgspec.structs.replace(message, number=self.number)
        with self._lock:
            self._ring[self.number] = numbered
        with contextlib.suppress(OSError):
            self.raw(records.frame(numbered))

    def raw(self, data: bytes) -> None:
        if self._sock is not None:
            self._sock.sendall(data)

    def die(self) -> None:
        if self._sock is None:
            return
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self._listener is not None:
            self._listener.join(30)
        self._sock.close()
        self._sock = self._listener = None

    def _read_ack(self, sock: socket.socket) -> int:
        sock.settimeout(30)
        frames = records.Frames()
        found: list[records.Message] = []
        while not found:
            data = sock.recv(4096)
            if not data:
                raise AssertionError("the observer closed the channel before its Ack")
            found = frames.feed(data)
        sock.settimeout(None)
        assert isinstance(found[0], Ack)
        return found[0].number

    def _take(self, number: int) -> None:
        with self._lock:
            self.acknowledged = max(self.acknowledged, number)
            self._ring = {key: value for key, value in self._ring.items() if key > number}

    def _listen(self, sock: socket.socket) -> None:
        frames = records.Frames()
        with contextlib.suppress(OSError):
            while data := sock.recv(4096):
                for message in frames.feed(data):
                    if isinstance(message, Ack):
                        self._take(message.number)


class PlayedSupervisor:
    """Owns the web socket and the checkpoint, and starts observers one after the other."""

    def __init__(self, configured: Config | None = None, env: Mapping[str, str] | None = None) -> None:
        self.config = configured or configuration()
        self.web = socket.create_server(("127.0.0.1", 0))
        self.memfd = os.memfd_create("checkpoint")
        self.url = f"http://127.0.0.1:{self.web.getsockname()[1]}"
        self._env = {**os.environ, "OTEL_SDK_DISABLED": "true", "PYTHONUNBUFFERED": "1", **(env or {})}
        self._child: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._relays: list[PlayedRelay] = []
        self.errors = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
        self.ended()
        for relay in self._relays:
            relay.die()
        self.web.close()
        os.close(self.memfd)

    def start(self, relays: Sequence[PlayedRelay] = (), *, connect: bool = True, ready: bool = True) -> None:
        """Start an observer and give it the relays that run."""
        ours, theirs = control.pair()
        with theirs:
            command = [sys.executable, "-m", "exporter.observer", "--control-fd", str(theirs.fileno())]
            self._child = subprocess.Popen(
                command, cwd=REPOSITORY, env=self._env, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
            )
        self._control = ours
        start = control.StartObserver(self.config, [relay.key for relay in relays])
        self.tell(start, [self.web.fileno(), self.memfd])
        self.tell(FACTS)
        for relay in relays if connect else ():
            self.connect(relay)
        if ready:
            self.wait_for(control.Ready)

    def connect(self, relay: PlayedRelay, *, catch_up: bool = True) -> None:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with other:
            self.tell(control.Channel(relay.index, relay.boot), [other.fileno()])
        self._relays.append(relay)
        relay.connect(one, catch_up=catch_up)

    def tell(self, message: control.Message, fds: Sequence[int] = ()) -> None:
        assert self._control is not None
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._control.sendmsg([msgspec.msgpack.encode(message)], rights)

    def wait_for(self, kind: type[control.Message]) -> None:
        assert self._control is not None
        self._control.settimeout(30)
        packet = self._control.recv(control.MAX_PACKET)
        if not packet:
            raise AssertionError(f"the observer ended with {self.ended()}: {self.errors.decode()}")
        assert isinstance(msgspec.msgpack.decode(packet, type=control.Message), kind)

    def kill(self) -> None:
        """SIGKILL, at whatever it is doing."""
        assert self._child is not None
        self._child.kill()
        self.ended()

    def hang_up(self) -> None:
        assert self._control is not None
        self._control.close()

    def ended(self) -> int:
        """The exit code of the observer once it has ended; its stderr is in ``errors``."""
        assert self._child is not None
        _, errors = self._child.communicate(timeout=30)
        self.errors += errors or b""
        if self._control is not None:
            self._control.close()
            self._control = None
        return self._child.returncode

    def page(self) -> Page:
        return Page.scrape(f"{self.url}/metrics")

    def wait_metric(self, value: float, name: str, **labels: str) -> None:
        until(lambda: self.page().get(name, **labels) == value, f"{name}{labels} being {value}", every=0.05)
