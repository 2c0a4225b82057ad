"""Plays one answer's steps on the event loop's clock, noting each moment; stops while the peer does not read."""

import asyncio
import time
from collections.abc import Callable, Iterator

from support.scripted_engine.answers import Mark, Step
from support.scripted_engine.exchanges import Exchange, Log

TIMER_GRAIN = 0.0006
"""Seconds; libuv's timers tick in milliseconds, so a step this close is due."""


class Play:
    """The writes of one answer, in time; `finished(keep)` is called once when none is left."""

    def __init__(
        self,
        steps: Iterator[Step],
        exchange: Exchange,
        log: Log,
        transport: asyncio.Transport,
        finished: Callable[[Mark], None],
        *,
        log_tokens: bool = True,
    ) -> None:
        self._steps, self._exchange, self._log = steps, exchange, log
        self._transport, self._finished = transport, finished
        self._log_tokens = log_tokens
        self._loop = asyncio.get_running_loop()
        self._origin = exchange.complete if exchange.complete is not None else time.monotonic()
        self._next: Step | None = None
        self._timer: asyncio.Handle | None = None

    def start(self) -> None:
        """Play what is due now, and set the clock for the rest."""
        self._next = next(self._steps, None)
        self._advance()

    def stop(self) -> None:
        """Play no further."""
        self._next = None
        if self._timer is not None:
            self._timer.cancel()

    def pause(self) -> None:
        """The peer takes no more: hold the answer."""
        with self._log.change():
            self._exchange.held = time.monotonic()

    def resume(self) -> None:
        """The peer reads again: go on, later by as long as it did not."""
        if self._exchange.held is not None:
            away = time.monotonic() - self._exchange.held
            self._origin += away
            with self._log.change():
                self._exchange.held = None
                self._exchange.stalled += away
            self._advance()

    def _advance(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._next is not None and self._exchange.held is None:
            left = self._origin + self._next.after - time.monotonic()
            if left > TIMER_GRAIN:
                self._timer = self._loop.call_later(left, self._advance)
                return
            step, self._next = self._next, next(self._steps, None)
            self._perform(step)

    def _perform(self, step: Step) -> None:
        if step.data:
            self._transport.write(step.data)
        self._note(step.mark, time.monotonic())
        if step.mark is Mark.END or step.mark is Mark.RESET:
            self._next = None
            self._finished(step.mark)
        elif step.mark is Mark.HANG:
            self._next = None

    def _note(self, mark: Mark, at: float) -> None:
        exchange = self._exchange
        if mark is Mark.TOKEN and exchange.first_token is not None:
            exchange.last_token = at
            if self._log_tokens:
                exchange.tokens.append(at)
            return
        with self._log.change():
            if mark is Mark.HEADERS:
                exchange.headers_sent = at
            elif mark is Mark.TOKEN:
                exchange.first_token = exchange.last_token = at
                if self._log_tokens:
                    exchange.tokens.append(at)
            elif mark is Mark.END or mark is Mark.RESET:
                exchange.ended = at
