"""The observer process: obeys the supervisor, and keeps checkpoint, memory and model names in time."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Coroutine
from pathlib import Path

from exporter import log
from exporter.config import Config
from exporter.control import Channel, Control, Facts, Finish, Finished, Message, Ready, RelayGone, StartObserver
from exporter.observer import memory, models, webconfig
from exporter.observer.checkpoint import Checkpoint, FdFile
from exporter.observer.fold import Fold
from exporter.observer.gauges import gauges
from exporter.observer.memory import Advice
from exporter.observer.parts import Parts
from exporter.observer.serving import serve
from exporter.observer.status import Status, status
from exporter.observer.web import Scrapes, application
from exporter.observer.webconfig import WebConfig, WebConfigError

RESTART = 75  # EX_TEMPFAIL: the supervisor starts us again with the same checkpoint
MISCONFIGURED = 78  # EX_CONFIG
_SCRAPE_WAITS = 3.0  # seconds a scrape waits for relays to send again what was not in the checkpoint
_PATIENCE = 10.0  # seconds after which a relay that did not is not waited for any more
_DRAIN, _FLUSH = 0.5, 5.0  # seconds for the last records and the last spans
_MODELS_KNOWN, _MODELS_UNKNOWN = 60.0, 5.0  # seconds between two questions to the engine


class Observer:
    """One observer, from its start message to its end."""

    def __init__(self, control_socket: socket.socket) -> None:
        """Listen to the supervisor on ``control_socket``."""
        self._loop = asyncio.get_running_loop()
        self._began = time.monotonic()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._control = Control(control_socket, self._told, lambda: self._end(1))
        self._tasks: set[asyncio.Task[None]] = set()
        self._facts: Facts | None = None
        self._parts: Parts | None = None

    # The supervisor's word

    def _told(self, message: Message, fds: list[int]) -> None:
        if isinstance(message, StartObserver):
            self._start(message, fds)
        elif isinstance(message, Facts):
            self._facts = message
        elif self._parts is None:
            _close(fds)
        elif isinstance(message, Channel):
            self._parts.channels.open((message.relay, message.boot), socket.socket(fileno=fds[0]))
        elif isinstance(message, RelayGone):
            self._parts.channels.gone((message.relay, message.boot))
        elif isinstance(message, Finish):
            self._spawn(self._finish(self._parts))

    def _start(self, start: StartObserver, fds: list[int]) -> None:
        config, (web, memfd) = start.config, fds
        try:
            protection = webconfig.load(Path(config.web_config_file)) if config.web_config_file else WebConfig()
        except WebConfigError as error:
            log.error("the web port cannot be protected as configured", error=str(error))
            self._end(MISCONFIGURED)
            return
        parts = self._parts = Parts(start, Checkpoint(FdFile(memfd)))
        scrapes = Scrapes(self._settled, lambda openmetrics: self._render(parts, openmetrics=openmetrics))
        app = application(scrapes, lambda: self._facts, lambda: self._status(parts), protection.users)
        web_socket = socket.socket(fileno=web)
        self._spawn(serve(app, web_socket, protection, lambda: self._control.send(Ready())))
        self._spawn(self._checkpoints(parts))
        self._spawn(self._learn(config, parts.fold))
        self._spawn(self._watch_memory(config.observer_memory, parts))

    async def _finish(self, parts: Parts) -> None:
        await parts.channels.drain(_DRAIN)
        if parts.spans is not None:
            await asyncio.to_thread(parts.spans.close, _FLUSH)
        parts.save()
        self._control.send(Finished())
        self._end(0)

    async def close(self) -> None:
        """Stop everything that runs."""
        self._control.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What runs all the time

    async def _checkpoints(self, parts: Parts) -> None:
        while True:
            await asyncio.sleep(parts.keeper.interval)
            parts.save()

    async def _learn(self, config: Config, fold: Fold) -> None:
        pause = _MODELS_UNKNOWN
        while True:
            try:
                fold.learn(await asyncio.to_thread(models.fetch, config.upstream))
                pause = _MODELS_KNOWN
            except (OSError, ValueError) as error:
                logging.getLogger(__name__).debug("the engine did not list its models: %s", error)
            await asyncio.sleep(pause)

    async def _watch_memory(self, ceiling: int, parts: Parts) -> None:
        shedding = False
        while True:
            await asyncio.sleep(1)
            size = memory.resident() or 0
            advice = memory.advise(size, ceiling, time.monotonic() - self._began)
            if advice is Advice.RESTART:
                log.warning("too large: restarting", resident=size, ceiling=ceiling)
                parts.save()
                self._end(RESTART)
            if advice is not Advice.NOTHING and not shedding:
                log.warning("nearly too large: giving up exemplars and spans", resident=size, ceiling=ceiling)
            shedding = advice is not Advice.NOTHING
            parts.shed(shedding=shedding)

    # What the web port shows

    async def _settled(self) -> bool:
        if self._parts is None or await self._parts.channels.settled(_SCRAPE_WAITS):
            return True
        return time.monotonic() - self._began > _PATIENCE

    def _render(self, parts: Parts, *, openmetrics: bool) -> bytes:
        # without the counts that only a checkpoint takes over: one told before it is safe would go back in a crash
        now = gauges(parts.fold, self._facts, time.monotonic())
        return parts.fold.totals.render(now, openmetrics=openmetrics)

    def _status(self, parts: Parts) -> Status:
        return status(parts.config, parts.fold, self._facts, parts.channels.pids, time.monotonic())

    # The end

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a part of the observer failed: restarting", error=f"{type(error).__name__}: {error}")
            self._end(1)

    def _end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)


async def run(control_socket: socket.socket) -> int:
    """Serve until the supervisor says Finish or is gone; the exit code."""
    observer = Observer(control_socket)
    try:
        return await observer.ended
    finally:
        await observer.close()


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
