"""Runs the scripted engine: in a thread of the test, or alone as a process."""

import argparse
import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Self

import msgspec
import uvloop

from support.scripted_engine.exchanges import Exchange, Log
from support.scripted_engine.protocol import Connection, Shared
from support.scripted_engine.script import Script
from support.waiting import DEADLINE

BACKLOG = 2048


class ScriptedEngine:
    """A fake engine on a free port, in a thread; a context manager."""

    def __init__(
        self,
        default: Script | None = None,
        *,
        port: int = 0,
        keep_alive: float | None = None,
        models: tuple[str, ...] = ("scripted",),
    ) -> None:
        self._shared = Shared(Log(), default or Script(), keep_alive, models)
        self.port = port
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="scripted engine", daemon=True)
        self._server: asyncio.AbstractServer | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._shared.open)

    @property
    def accepted(self) -> int:
        """Connections ever accepted."""
        return self._shared.accepted

    def set_default(self, script: Script) -> None:
        """The script of answers whose request brings none."""
        self._shared.default = script

    def exchanges(self, path: str | None = None) -> list[Exchange]:
        """The exchanges so far, oldest first, of one path or all."""
        return self._shared.log.select(path)

    def wait(
        self,
        condition: Callable[[list[Exchange]], bool],
        path: str | None = "/v1/chat/completions",
        within: float = DEADLINE,
    ) -> list[Exchange]:
        """The exchanges of that path, once `condition` holds for them."""
        return self._shared.log.wait(condition, path, within)

    def wait_over(self, count: int = 1, path: str | None = "/v1/chat/completions") -> list[Exchange]:
        """The exchanges, once `count` of that path have ended or lost their peer."""
        return self.wait(lambda all_: sum(one.over for one in all_) >= count, path)

    def clear(self) -> None:
        """Forget every exchange so far."""
        self._shared.log.clear()

    def stop_listening(self) -> None:
        """Refuse new connections; open ones go on."""
        self._do(self._unlisten())

    def listen_again(self) -> None:
        """Accept connections again, on the same port."""
        self._do(self._listen())

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, what: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = int(listener.getsockname()[1])
        self._server = await self._loop.create_server(lambda: Connection(self._shared), sock=listener, backlog=BACKLOG)

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _close(self) -> None:
        await self._unlisten()
        for connection in list(self._shared.open):
            connection.abort()
        while self._shared.open:  # noqa: ASYNC110 a turn or two of the loop, at the end only
            await asyncio.sleep(0)


def main() -> None:
    """Run alone until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", default="{}", help="the default script, JSON")
    parser.add_argument("--keep-alive", type=float, default=None, help="idle seconds before it closes a connection")
    options = parser.parse_args()
    default = msgspec.json.decode(options.script, type=Script)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with (
        contextlib.suppress(KeyboardInterrupt),
        ScriptedEngine(default, port=options.port, keep_alive=options.keep_alive) as engine,
    ):
        print(f"scripted engine on {engine.url}", flush=True)  # noqa: T201 the caller waits for this line
        ended.wait()
