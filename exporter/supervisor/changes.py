"""Waiting for something to become true in a program where everything happens on one event loop."""

import asyncio
from collections.abc import Callable


class Changes:
    """Whoever changes something tells it here; whoever waits asks the question again."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        """Something changed."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], bool], within: float | None = None) -> bool:
        """Wait until ``condition`` holds, ``within`` seconds at most; whether it does."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    await self.next()
        except TimeoutError:
            return condition()
        return True

    async def next(self) -> None:
        """Wait for the next change."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
