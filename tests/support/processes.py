"""Processes that a test starts: their output kept, their readiness awaited, their end made sure of."""

import collections
import contextlib
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from support.waiting import DEADLINE, DeadlineError, until

WITH_PARENT = ["setpriv", "--pdeathsig", "TERM"]
"""A child ends even when the test run is killed."""
REPOSITORY = Path(__file__).resolve().parents[2]
TAIL_LINES = 200


class ExitedError(AssertionError):
    """A process ended while something was still expected of it."""


def http_answers(url: str, status: int = 200) -> bool:
    """Whether a GET of `url` answers with `status` right now."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 loopback only
            return int(answer.status) == status
    except urllib.error.HTTPError as refused:
        return refused.code == status
    except OSError:
        return False


def tcp_accepts(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def session_members(session: int) -> list[int]:
    """The processes of one session: a `Process` and all its descendants that did not leave it."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[3]) == session and after_name[0] != "Z":
                members.append(int(entry.name))
    return sorted(members)


def command_line(pid: int) -> list[str]:
    """The process's arguments; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    return []


class Process:
    """A running child in a session of its own; use as a context manager, or call `stop`."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        cpus: set[int] | None = None,
    ) -> None:
        self.name = name or Path(argv[0]).name
        self._lines: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._child = subprocess.Popen(
            [*WITH_PARENT, *(str(part) for part in argv)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        if cpus is not None:
            os.sched_setaffinity(self._child.pid, cpus)
        self._reader = threading.Thread(target=self._collect, name=f"output of {self.name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def output(self) -> str:
        """The last lines it wrote, both streams together."""
        return "\n".join(list(self._lines))

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._child.poll()

    def wait_http(self, url: str, within: float = DEADLINE, status: int = 200) -> None:
        """Wait until `url` answers, or say why not with the output so far."""
        self._wait(lambda: http_answers(url, status), f"{url} answering {status}", within)

    def wait_tcp(self, port: int, within: float = DEADLINE) -> None:
        """Wait until the loopback port accepts connections."""
        self._wait(lambda: tcp_accepts(port), f"port {port} accepting", within)

    def wait_output(self, text: str, within: float = DEADLINE) -> None:
        """Wait until it has written `text`."""
        self._wait(lambda: text in self.output, f"output containing {text!r}", within)

    def wait_exit(self, within: float = DEADLINE) -> int:
        """The exit code, once it has ended by itself."""
        try:
            code = self._child.wait(within)
        except subprocess.TimeoutExpired:
            raise DeadlineError(f"{self.name} still runs after {within:g} s\n{self.output}") from None
        self._reader.join(5)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone, not to its children."""
        self._child.send_signal(number)

    def stop(self, grace: float = 10.0) -> int:
        """SIGTERM, after `grace` seconds SIGKILL to it and to children it left behind; the exit code."""
        if self._child.poll() is None:
            self._child.terminate()
        try:
            self._child.wait(grace)
        except subprocess.TimeoutExpired:
            self._lines.append(f"[{self.name} was killed: it did not end {grace:g} s after SIGTERM]")
        for pid in session_members(self._child.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        code = self._child.wait()
        self._reader.join(5)
        if self._child.stdout is not None and not self._reader.is_alive():
            self._child.stdout.close()
        return code

    def _collect(self) -> None:
        stream = self._child.stdout
        if stream is not None:
            with contextlib.suppress(ValueError):
                self._lines.extend(line.rstrip("\n") for line in stream)

    def _wait(self, condition: Callable[[], bool], what: str, within: float) -> None:
        def ready() -> bool:
            if self.returncode is not None:
                self._reader.join(5)
                raise ExitedError(f"{self.name} exited with {self.returncode} before {what}\n{self.output}")
            return condition()

        try:
            until(ready, f"{self.name}: {what}", within, every=0.05)
        except DeadlineError as late:
            raise DeadlineError(f"{late}\n{self.output}") from None
