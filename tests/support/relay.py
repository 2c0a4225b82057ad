"""A real relay process without supervisor and observer: the test plays both, and keeps every record."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from exporter import config, control, records
from exporter.core.tally import Series, Tally
from exporter.core.timeline import Timeline
from support.processes import REPOSITORY
from support.waiting import until


class RelayProcess:
    """A relay in front of ``upstream``; ``timelines`` and ``tally`` are what it told."""

    def __init__(
        self,
        upstream: str,
        flags: Mapping[str, str] | None = None,
        *,
        observed: bool = True,
        environ: Mapping[str, str] | None = None,
        module: str = "exporter.relay",
    ) -> None:
        self._config = config.load(environ or {}, None, {"upstream": upstream, **(flags or {})})
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.timelines: list[Timeline] = []
        self.opened: list[records.Opened] = []
        self.live: list[records.Live] = []
        self.tally = Tally()
        self.status: control.RelayStatus | None = None
        self.hellos = 0
        self.lost_channels = 0
        self._ready = threading.Event()
        self._freezing = threading.Lock()
        self._last = 0
        self._observed = observed
        self._control, child = control.pair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--control-fd", str(child.fileno())],
            pass_fds=[child.fileno()],
            cwd=REPOSITORY,
        )
        child.close()
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()
        self.tell(control.StartRelay(self._config, 0, "boot"), self._listener.fileno())
        assert self._ready.wait(20), "the relay did not become ready"
        if observed:
            self.observe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, message: control.Message, *fds: int) -> None:
        socket.send_fds(self._control, [msgspec.msgpack.encode(message)], list(fds))

    def drop_channel(self) -> None:
        """End the newest session."""
        self._channel.shutdown(socket.SHUT_RDWR)

    def observe(self) -> socket.socket:
        """Begin a new session as the observer; the socket is its end."""
        ours, theirs = socket.socketpair()
        self._channel = ours
        self.tell(control.Channel(0, "boot"), theirs.fileno())
        theirs.close()
        thread = threading.Thread(target=self._fold, args=(ours,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return ours

    def ended(self, count: int) -> list[Timeline]:
        """The timelines, once there are ``count``."""
        until(lambda: len(self.timelines) >= count, f"{count} timelines, there are {len(self.timelines)}")
        return list(self.timelines)

    def counter(self, series: Series) -> float:
        return self.tally.counters.get(series, 0)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process, so that it finds in one read whatever comes meanwhile."""
        with self._freezing:
            os.kill(self.pid, signal.SIGSTOP)
            try:
                until(lambda: _state(self.pid) == "T", "the stop", every=0.001)
                yield
            finally:
                os.kill(self.pid, signal.SIGCONT)

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def wait_exit(self) -> int:
        return self._process.wait(20)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        self._control.shutdown(socket.SHUT_RDWR)  # the supervisor is gone: the relay leaves by itself
        self._control.close()
        try:
            self._process.wait(10)
        finally:
            if self._process.poll() is None:
                self.kill()
            self._listener.close()
            for thread in self._threads:
                thread.join(5)

    def _listen(self) -> None:
        while True:
            try:
                packet = self._control.recv(control.MAX_PACKET)
            except OSError:
                return
            if not packet:
                return
            message = msgspec.msgpack.decode(packet, type=control.FromChild)
            if isinstance(message, control.Ready):
                self._ready.set()
            elif isinstance(message, control.ChannelLost):
                self.lost_channels += 1
            elif isinstance(message, control.RelayStatus):
                self.status = message

    def _fold(self, sock: socket.socket) -> None:
        frames = records.Frames()
        with sock:
            while True:
                try:
                    data = sock.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                with suppress(OSError):  # the relay may leave before it is acknowledged
                    for message in frames.feed(data):
                        self._take(message, sock)

    def _take(self, message: records.Message, sock: socket.socket) -> None:
        match message:
            case records.Hello():
                self.hellos += 1
                sock.sendall(records.frame(records.Ack(self._last)))
            case records.Ended(number, timeline):
                self._advance(number, sock)
                self.timelines.append(timeline)
            case records.Pulse(number):
                self._advance(number, sock)
                self.live = message.live
                self.opened.extend(message.opened)
                self.tally.merge(records.pulse_tally(message))
            case _:
                pass

    def _advance(self, number: int, sock: socket.socket) -> None:
        assert number == self._last + 1, f"number {number} after {self._last}"
        self._last = number
        sock.sendall(records.frame(records.Ack(number)))


def resident_kib(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def peak_kib(pid: int) -> int:
    """The most that was ever resident of a process, in KiB."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0])


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
