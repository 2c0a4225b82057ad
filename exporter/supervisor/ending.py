"""The end in order: not ready, delay, listeners closed, answers finish, the rest is aborted; the observer goes last."""

import asyncio

from exporter import control, log
from exporter.config import Config
from exporter.supervisor.changes import Changes
from exporter.supervisor.fleet import Fleet
from exporter.supervisor.rhythm import Rhythm
from exporter.supervisor.state import State


class Ending:
    """A drain, begun once, by a signal or over the health port; ``hurry`` skips its waiting."""

    def __init__(self, config: Config, fleet: Fleet, state: State, changes: Changes, rhythm: Rhythm) -> None:
        """Not begun."""
        self._config = config
        self._fleet = fleet
        self._state = state
        self._changes = changes
        self._rhythm = rhythm
        self._hurry = False
        self._task: asyncio.Task[None] | None = None

    def begin(self, why: str) -> None:
        """Begin to drain; again: nothing new."""
        if self._task is None:
            log.info("draining", why=why, delay=self._config.drain_delay, timeout=self._config.drain_timeout)
            self._state.draining = True
            self._changes.tell()
            self._task = asyncio.get_running_loop().create_task(self._drain())

    def hurry(self) -> None:
        """Wait for nothing any more."""
        self._hurry = True
        self._changes.tell()

    async def finish(self) -> None:
        """Drain to the end, then end the children: relays first, then the observer."""
        self.begin("ending")
        if self._task is not None:
            await self._task
        await self._fleet.finish(self._fleet.relays, self._within(self._rhythm.relay_ends_within))
        await self._fleet.finish([self._fleet.observer], self._within(self._rhythm.observer_ends_within))

    async def _drain(self) -> None:
        self._fleet.order(control.Drain())
        await self._wait_for_idle(self._config.drain_delay, early=False)
        self._fleet.stop_accepting()
        if not await self._wait_for_idle(self._config.drain_timeout):
            log.warning("aborting what still runs", in_flight=self._state.in_flight())
            self._fleet.order(control.Abort())
            within = self._within(self._rhythm.abort_within)
            await self._changes.until(self._state.idle, within)
        self._state.drained = True
        log.info("drained", in_flight=self._state.in_flight())
        self._changes.tell()

    async def _wait_for_idle(self, within: float, *, early: bool = True) -> bool:
        """Whether nothing is in flight after ``within`` seconds, or ``early``, as soon as it is so, or in a hurry."""
        await self._changes.until(lambda: self._hurry or (early and self._state.idle()), within)
        return self._state.idle()

    def _within(self, seconds: float) -> float:
        return min(seconds, self._rhythm.hurried_within) if self._hurry else seconds
