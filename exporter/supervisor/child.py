"""One slot in which a process runs, again and again: its start, its control channel, its end."""

import os
import secrets
import signal
from collections.abc import Callable, Sequence

from exporter import control
from exporter.control import Control, Message
from exporter.supervisor.backoff import Backoff
from exporter.supervisor.rhythm import Rhythm


class Child:
    """A slot. ``kind`` is relay or observer, ``boot`` tells the incarnations of the slot apart."""

    def __init__(self, kind: str, index: int, command: Sequence[str], rhythm: Rhythm) -> None:
        """Nothing runs yet."""
        self.kind = kind
        self.index = index
        self.name = f"relay {index}" if kind == "relay" else kind
        self.boot = ""
        self.pid: int | None = None
        self.ready = False
        self.started = 0.0
        self.failed_starts = 0  # in a row, and none of them ever Ready; -1 once one was
        self.backoff = Backoff(rhythm)
        self._command = command
        self._control: Control | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.pid is not None

    def spawn(self, now: float, on_message: Callable[[Message, list[int]], None], on_close: Callable[[], None]) -> None:
        """Start a process; OSError where the system cannot.

        It gets a process group of its own, so that a terminal's Ctrl-C reaches the supervisor alone.
        """
        self.started = now
        ours, theirs = control.pair()
        with theirs:
            theirs.set_inheritable(True)
            command = [*self._command, "--control-fd", str(theirs.fileno())]
            try:
                self.pid = os.posix_spawnp(command[0], command, os.environ, setpgroup=0)
            except OSError:
                ours.close()
                raise
        self.boot = secrets.token_hex(6)
        self._control = Control(ours, on_message, on_close)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Tell the process, if there is one."""
        if self._control is not None:
            self._control.send(message, fds)

    def became_ready(self) -> None:
        """It serves."""
        self.ready = True
        self.failed_starts = -1

    def kill(self) -> None:
        """SIGKILL; the end is noticed as any other."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> None:
        """The process was reaped."""
        if not self.ready and self.failed_starts >= 0:
            self.failed_starts += 1
        self.pid = None
        self.ready = False
        if self._control is not None:
            self._control.close()
            self._control = None
