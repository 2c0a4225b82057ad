"""All children: started, introduced to each other, reaped, started again."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from exporter import control, log
from exporter.config import Config
from exporter.control import Message
from exporter.supervisor.changes import Changes
from exporter.supervisor.child import Child
from exporter.supervisor.rhythm import Rhythm
from exporter.supervisor.sockets import Sockets
from exporter.supervisor.state import State


@dataclass(frozen=True, slots=True)
class Commands:
    """What is run as a child, before ``--control-fd N``."""

    relay: Sequence[str] = (sys.executable, "-m", "exporter.relay")
    observer: Sequence[str] = (sys.executable, "-m", "exporter.observer")


class Fleet:
    """The relays and the observer. ``gave_up`` names the child that could never start, else it is ``None``."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that run() composes
        self, config: Config, sockets: Sockets, commands: Commands, rhythm: Rhythm, state: State, changes: Changes
    ) -> None:
        """Nothing runs yet."""
        self.relays = [Child("relay", index, commands.relay, rhythm) for index in range(config.workers)]
        self.observer = Child("observer", 0, commands.observer, rhythm)
        self.gave_up: str | None = None
        self._config = config
        self._sockets = sockets
        self._rhythm = rhythm
        self._state = state
        self._changes = changes
        self._loop = asyncio.get_running_loop()
        self._closing: set[str] = set()  # kinds that are not started again
        self._orders: list[Message] = []  # what was told to all relays, for those that start later
        self._told: control.Facts | None = None

    def start(self) -> None:
        """Start everything and begin to reap."""
        self._loop.add_signal_handler(signal.SIGCHLD, self.reap)
        for child in self._all():
            self._start(child)

    def order(self, message: Message) -> None:
        """Tell all relays, and those that start later."""
        self._orders.append(message)
        for relay in self.relays:
            relay.send(message)

    def stop_accepting(self) -> None:
        """Close the clients' socket here and in all relays; none is started again, one that starts is ended."""
        self._closing.add("relay")
        self._sockets.clients.close()
        for relay in self.relays:
            if relay.ready:
                relay.send(control.StopAccepting())
            else:
                relay.kill()

    async def finish(self, children: Sequence[Child], within: float) -> None:
        """Let children send what is left and exit; kill what still runs after ``within`` seconds."""
        self._closing |= {child.kind for child in children}
        for child in children:
            child.send(control.Finish())
        if await self._changes.until(lambda: not any(child.running for child in children), within):
            return
        for child in children:
            if child.running:
                log.warning("killed: it did not end in time", child=child.name, pid=child.pid, within=within)
                child.kill()
        await self._changes.until(lambda: not any(child.running for child in children), self._rhythm.killed_within)

    def tell_facts(self) -> None:
        """Tell the observer what is new since it was told last."""
        facts = self._state.facts(self._loop.time())
        if facts != self._told and self.observer.running:
            self._told = facts
            self.observer.send(facts)

    def reap(self) -> None:
        """Take in everything that ended: our children, and orphans that came to us as PID 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._all():
                if child.pid == pid:
                    self._ended(child, os.waitstatus_to_exitcode(status))

    def _all(self) -> Iterator[Child]:
        yield from self.relays
        yield self.observer

    def _start(self, child: Child) -> None:
        if child.kind in self._closing or child.running:
            return
        try:
            child.spawn(self._loop.time(), partial(self._heard, child), partial(self._channel_lost, child))
        except OSError as error:
            log.error("cannot be started", child=child.name, error=str(error))
            child.ended()
            self._failed(child)
            return
        log.info("started", child=child.name, pid=child.pid, boot=child.boot)
        if child.kind == "relay":
            self._introduce_relay(child)
        else:
            self._introduce_observer()
        self._later(self._rhythm.ready_within, child, lambda: not child.ready, "killed: it did not become ready")

    def _introduce_relay(self, relay: Child) -> None:
        start = control.StartRelay(self._config, relay.index, relay.boot)
        relay.send(start, [self._sockets.clients.fileno()])
        self._connect(relay)
        for order in self._orders:
            relay.send(order)

    def _introduce_observer(self) -> None:
        running = [relay for relay in self.relays if relay.running]
        start = control.StartObserver(self._config, [(relay.index, relay.boot) for relay in running])
        self.observer.send(start, [self._sockets.web.fileno(), self._sockets.checkpoint.fileno()])
        for relay in running:
            self._connect(relay)
        self._told = None
        self.tell_facts()

    def _connect(self, relay: Child) -> None:
        """Give a relay and the observer the two ends of a new channel, if both run."""
        if not self.observer.running:
            return
        message = control.Channel(relay.index, relay.boot)
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with one, other:
            relay.send(message, [one.fileno()])
            self.observer.send(message, [other.fileno()])

    def _reconnect(self, relay: Child, relay_pid: int | None, observer_pid: int | None) -> None:
        """Give both a new channel if both are still those that lost theirs; else their start has given them one."""
        if relay.running and relay.pid == relay_pid and self.observer.pid == observer_pid:
            log.warning("a channel between living processes ended; they get a new one", child=relay.name)
            self._connect(relay)

    def _heard(self, child: Child, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        if isinstance(message, control.Ready):
            child.became_ready()
            log.info("ready", child=child.name)
            if child.kind == "relay":
                self._state.relays[child.index] = control.RelayStatus(in_flight=0, accepting=True)
        elif isinstance(message, control.RelayStatus) and child.ready:
            self._state.relays[child.index] = message
        elif isinstance(message, control.ChannelLost):
            self._loop.call_later(self._rhythm.reconnect_after, self._reconnect, child, child.pid, self.observer.pid)
        self._changes.tell()

    def _channel_lost(self, child: Child) -> None:
        """Normally it is ending; else it cannot be led any more, and has to end."""
        self._later(self._rhythm.hurried_within, child, lambda: True, "killed: its control channel is closed")

    def _later(self, delay: float, child: Child, condition: Callable[[], bool], words: str) -> None:
        """Kill this incarnation of a child after a delay in seconds, if it still runs and the condition holds."""
        pid = child.pid

        def kill() -> None:
            if child.pid == pid and child.running and condition():
                log.warning(words, child=child.name, pid=pid, after=delay)
                child.kill()

        self._loop.call_later(delay, kill)

    def _ended(self, child: Child, code: int) -> None:
        expected = child.kind in self._closing
        tell = log.info if expected and code == 0 else log.warning
        tell("ended", child=child.name, pid=child.pid, **_why(code))
        if child.kind == "relay":
            self._state.relays.pop(child.index, None)
            self.observer.send(control.RelayGone(child.index, child.boot))
        child.ended()
        if not expected:
            self._failed(child)
        self._changes.tell()

    def _failed(self, child: Child) -> None:
        """Start it again after a while, or give up what never came to life."""
        if child.failed_starts >= self._rhythm.first_starts:
            self.gave_up = child.name
            log.error("gave up: it never became ready; its own words are above", child=child.name,
                      starts=child.failed_starts)  # fmt: skip
            self._changes.tell()
            return
        delay = child.backoff.after(self._loop.time() - child.started)
        self._state.restarts[child.kind] += 1
        log.info("will be started again", child=child.name, delay=delay)
        self._loop.call_later(delay, self._start, child)


def _why(code: int) -> dict[str, str | int]:
    return {"code": code} if code >= 0 else {"signal": -code, "by": signal.strsignal(-code) or "unknown"}
