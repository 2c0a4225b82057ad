"""Whether there is an engine: a TCP connect every two seconds, and one log line whenever the answer changes."""

import asyncio
import contextlib

from exporter import log
from exporter.config import Address
from exporter.supervisor.changes import Changes
from exporter.supervisor.rhythm import Rhythm
from exporter.supervisor.state import State


async def probe(engine: Address, state: State, changes: Changes, rhythm: Rhythm) -> None:
    """Go on until cancelled. A connect says nothing about the engine's work, and disturbs it as little."""
    loop = asyncio.get_running_loop()
    was_up: bool | None = None
    while True:
        if await _connects(engine, rhythm.probe_within):
            state.engine_seen = loop.time()
        up = state.engine_up(loop.time())
        if up != was_up:
            _say(state.engine, up=up, first=was_up is None)
            was_up = up
        changes.tell()
        await asyncio.sleep(rhythm.probe_every)


async def _connects(engine: Address, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            _, writer = await asyncio.open_connection(engine.host, engine.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _say(engine: str, *, up: bool, first: bool) -> None:
    if up:
        log.info(f"engine at {engine} accepts connections")
    elif first:
        log.warning(f"no engine at {engine} yet; will keep trying")
    else:
        log.warning(f"engine at {engine} is gone; will keep trying")
