"""The composition of the first process, from the sockets to its exit code."""

import asyncio
import contextlib
import signal

from exporter import __version__, log
from exporter.config import Config
from exporter.supervisor.changes import Changes
from exporter.supervisor.ending import Ending
from exporter.supervisor.fleet import Commands, Fleet
from exporter.supervisor.health import Health
from exporter.supervisor.http import Server
from exporter.supervisor.probe import probe
from exporter.supervisor.rhythm import Rhythm
from exporter.supervisor.sockets import Sockets, open_all
from exporter.supervisor.state import State


def run(config: Config, commands: Commands | None = None, rhythm: Rhythm | None = None) -> int:
    """Run a sidecar until it is told to end; the exit code. ListenError where an address is taken."""
    sockets = open_all(config)
    try:
        return asyncio.run(_live(config, sockets, commands or Commands(), rhythm or Rhythm()))
    finally:
        sockets.close()


async def _live(config: Config, sockets: Sockets, commands: Commands, rhythm: Rhythm) -> int:
    loop = asyncio.get_running_loop()
    state, changes = State(str(config.upstream), rhythm.engine_up_for), Changes()
    fleet = Fleet(config, sockets, commands, rhythm, state, changes)
    ending = Ending(config, fleet, state, changes, rhythm)
    signals = _signals(loop, ending, changes)
    health = Server(Health(state, changes, rhythm, lambda: ending.begin("asked to"), loop.time).answer)
    _introduce(config)
    server = await loop.create_server(health.connection, sock=sockets.health)
    fleet.start()
    tasks = [loop.create_task(probe(config.upstream.address, state, changes, rhythm)),
             loop.create_task(_mirror(fleet, changes))]  # fmt: skip
    await changes.until(lambda: bool(signals) or fleet.gave_up is not None)
    if fleet.gave_up is not None:
        ending.hurry()
    await ending.finish()
    for task in tasks:
        task.cancel()
    server.close()
    await health.close()
    log.info("ended", code=0 if fleet.gave_up is None else 1)
    return 0 if fleet.gave_up is None else 1


def _introduce(config: Config) -> None:
    log.info("inference-exporter", version=__version__, upstream=str(config.upstream), listen=str(config.listen),
             metrics=f"http://{config.web_listen_address}/metrics", health=str(config.health_listen_address),
             workers=config.workers, spans=",".join(config.tracing.exporters) or "off")  # fmt: skip


def _signals(loop: asyncio.AbstractEventLoop, ending: Ending, changes: Changes) -> list[str]:
    """The names of the signals that came; the first begins the end, the second hurries it."""
    came: list[str] = []

    def come(name: str) -> None:
        came.append(name)
        if len(came) > 1:
            log.warning("hurrying", why=name)
            ending.hurry()
        else:
            ending.begin(name)
        changes.tell()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, come, number.name)
    return came


async def _mirror(fleet: Fleet, changes: Changes) -> None:
    """Tell the observer whatever changes."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            fleet.tell_facts()
            await changes.next()
