"""One relay process: it is told what to do over the control channel, and ticks four times a second."""

import asyncio
import gc
import os
import random
import socket
import time
from collections.abc import Coroutine
from functools import partial

from exporter import log, records
from exporter.config import sample
from exporter.control import (
    Abort,
    Channel,
    ChannelLost,
    Control,
    Drain,
    Finish,
    Message,
    Ready,
    RelayStatus,
    StartRelay,
    StopAccepting,
)
from exporter.engines import ENGINES
from exporter.exchange import Settings
from exporter.relay.channel import ObserverChannel, open_channel
from exporter.relay.client import Client
from exporter.relay.pool import Pool
from exporter.relay.reporter import Reporter
from exporter.relay.services import Services
from exporter.relay.turn import Turn

TICK = 0.25
FLUSH = 0.02


class Relay:
    """Accepts clients, follows their requests, reports to the observer, obeys the supervisor."""

    def __init__(self, control_socket: socket.socket, stopped: asyncio.Event) -> None:
        """Listen to the supervisor on ``control_socket``; set ``stopped`` when there is nothing left to do."""
        self._loop = asyncio.get_running_loop()
        self._control = Control(control_socket, self._told, stopped.set)
        self._stopped = stopped
        self._clients: set[Client] = set()
        self._server: asyncio.Server | None = None
        self._services: Services | None = None
        self._channel: ObserverChannel | None = None
        self._status: RelayStatus | None = None
        self._flushing = False
        self._tasks: set[asyncio.Task[None]] = set()

    # The supervisor's word

    def _told(self, message: Message, fds: list[int]) -> None:
        match message:
            case StartRelay():
                self._spawn(self._start(message, fds[0]))
            case Channel():
                self._spawn(self._connect(fds[0]))
            case Drain():
                self._drain()
            case StopAccepting():
                self._stop_accepting()
            case Abort():
                self._abort()
            case Finish():
                self._spawn(self._finish())
            case _:
                pass

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, start: StartRelay, fd: int) -> None:
        config = start.config
        log.setup(f"relay {start.index}")
        hello = partial(_hello, start.index, start.boot, time.time(), time.monotonic())  # noqa: TID251 - the one anchor
        reporter = Reporter(hello, self._flush_soon)
        randomness = random.Random(os.urandom(32))  # noqa: S311 - ids have to be distinct, not secret
        settings = Settings(
            engine=ENGINES[config.engine],
            inspect_limit=config.inspect_limit,
            sample=lambda trace_id, parent: sample(trace_id, parent, config.tracing),
            trace_id=lambda: randomness.getrandbits(128) or 1,
            span_id=lambda: randomness.getrandbits(64) or 1,
            gaps=reporter.gaps,
            traces=config.tracing.enabled,
            label_headers=tuple(label.header.lower().encode() for label in config.label_headers),
        )
        pool = Pool(config.upstream, config.connect_timeout, config.upstream_keepalive)
        services = self._services = Services(
            config, settings, pool, reporter, set[Turn](), config.upstream.prefix.encode()
        )
        listening = socket.socket(fileno=fd)
        self._server = await self._loop.create_server(lambda: Client(services, self._clients), sock=listening)
        self._control.send(Ready())
        gc.collect()
        gc.freeze()  # what was imported never becomes garbage; do not look at it again
        self._tick()

    async def _connect(self, fd: int) -> None:
        if self._services is None:
            os.close(fd)
            return
        if self._channel is not None:
            self._channel.close()
        self._channel = await open_channel(self._services.reporter, fd, lambda: self._control.send(ChannelLost()))

    # The clock

    def _tick(self) -> None:
        self._loop.call_later(TICK, self._tick)
        services = self._services
        if services is None:
            return
        now = time.monotonic()
        for turn in services.turns:
            turn.catch_up()
        for client in list(self._clients):
            client.check(now)
        services.pool.expire()
        services.reporter.pulse(now)
        self._report()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_later(FLUSH, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._services is not None:
            self._services.reporter.flush()
            if self._services.draining:
                self._report()

    def _report(self) -> None:
        if self._services is None:
            return
        status = RelayStatus(len(self._services.turns), self._server is not None)
        if status != self._status:
            self._status = status
            self._control.send(status)

    # The end

    def _drain(self) -> None:
        if self._services is not None:
            self._services.draining = True  # every answer's head says from now on that it is the last

    def _stop_accepting(self) -> None:
        self._drain()
        if self._server is not None:
            self._server.close()
            self._server = None
        for client in list(self._clients):
            client.drain()
        self._report()

    def _abort(self) -> None:
        if self._services is not None:
            for turn in list(self._services.turns):
                turn.abort("the sidecar is shutting down")
        for client in list(self._clients):
            client.close()
        self._report()

    async def _finish(self) -> None:
        """Give the observer a bounded time to acknowledge everything, then leave."""
        services = self._services
        if services is not None:
            services.reporter.pulse(time.monotonic())
            services.reporter.flush()
            services.pool.close()
            deadline = self._loop.time() + 3.0
            while services.reporter.unacknowledged and self._loop.time() < deadline:  # noqa: ASYNC110 - bounded, the end
                await asyncio.sleep(FLUSH)
        self._stopped.set()


def _hello(index: int, boot: str, wall: float, monotonic: float) -> records.Hello:
    return records.Hello(index, boot, os.getpid(), wall, monotonic)


async def run(control_socket: socket.socket) -> None:
    """Be a relay until the supervisor says or is gone."""
    stopped = asyncio.Event()
    relay = Relay(control_socket, stopped)
    await stopped.wait()
    del relay
