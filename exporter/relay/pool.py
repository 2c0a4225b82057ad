"""Connections to the engine: kept for a short while when free, made when there is none, never queued for."""

import asyncio
import ssl
from collections.abc import Callable

from exporter.config import Upstream as Target
from exporter.relay.upstream import Upstream


class Pool:
    """The engine's connections.

    The newest free connection is taken first, so that the old ones run out: engines close idle connections (uvicorn
    after 5 s), and a request written to one that is just being closed is lost.
    """

    def __init__(self, target: Target, connect_timeout: float, keepalive: float) -> None:
        """Connections to ``target``; timeouts in seconds."""
        self._target = target
        self._timeout = connect_timeout
        self._keepalive = keepalive
        self._free: list[Upstream] = []
        self._tls = ssl.create_default_context() if target.scheme == "https" else None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """The engine's address, for messages."""
        return f"{self._target.host}:{self._target.port}"

    def take(self) -> Upstream | None:
        """A free connection that is still open."""
        while self._free:
            upstream = self._free.pop()
            if upstream.open:
                upstream.pooled = True
                return upstream
        return None

    def connect(self, done: Callable[[Upstream], None], failed: Callable[[OSError | TimeoutError], None]) -> None:
        """Make a new connection and tell how it went."""
        task = asyncio.get_running_loop().create_task(self._connect(done, failed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(
        self, done: Callable[[Upstream], None], failed: Callable[[OSError | TimeoutError], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                _, upstream = await loop.create_connection(
                    lambda: Upstream(self), self._target.host, self._target.port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            failed(error)
            return
        except UnicodeError as error:  # a host name that cannot be one
            failed(OSError(str(error)))
            return
        done(upstream)

    def give_back(self, upstream: Upstream) -> None:
        """A connection whose answer is complete."""
        if upstream.open:
            upstream.free_since = asyncio.get_running_loop().time()
            self._free.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        """A connection that is gone."""
        if upstream in self._free:
            self._free.remove(upstream)

    def expire(self) -> None:
        """Close the connections that were free for too long."""
        limit = asyncio.get_running_loop().time() - self._keepalive
        while self._free and self._free[0].free_since <= limit:
            self._free.pop(0).close()

    def close(self) -> None:
        """Close all free connections and give up those being made."""
        for task in self._tasks:
            task.cancel()
        while self._free:
            self._free.pop().close()
