"""Clients that keep a server busy: each asks again and again, and what is not a complete good answer is an error."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from support.raw import CHAT, RawClient, chat

REQUESTS_EACH = 4
"""Requests on one connection, before the next is made."""


@dataclass(frozen=True)
class Try:
    """One request: the moment it was sent, and what was wrong with its answer (None: nothing)."""

    sent: float
    error: str | None


class Load:
    """`clients` threads that ask `port` until told to stop; `script(number)` is what each request asks for."""

    def __init__(self, port: int, clients: int, script: Callable[[int], dict[str, object]]) -> None:
        self.port = port
        self._script = script
        self._numbers = iter(range(1_000_000))
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._tries: list[Try] = []
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def tries(self) -> list[Try]:
        """Every request that ended so far."""
        with self._lock:
            return list(self._tries)

    @property
    def errors(self) -> list[str]:
        """What was wrong with each bad one."""
        return [one.error for one in self.tries if one.error is not None]

    def stop(self) -> list[Try]:
        """Begin no more requests, wait for those that run, and return them all."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), "a client still waits for its answer"
        return self.tries

    def _ask(self) -> None:
        while not self._stopping.is_set():
            try:
                with RawClient(self.port) as client:
                    self._converse(client)
            except OSError as error:
                self._note(Try(0.0, f"cannot connect: {error!r}"))
                self._stopping.wait(0.01)

    def _converse(self, client: RawClient) -> None:
        for turn in range(REQUESTS_EACH):
            if self._stopping.is_set() or not self._one(client, turn):
                return

    def _one(self, client: RawClient, turn: int) -> bool:
        """Ask once; whether the connection is good for another."""
        with self._lock:
            script = self._script(next(self._numbers))
        sent = 0.0
        try:
            sent = client.post(CHAT, chat(script))
            answer = client.answer(turn)
        except OSError as error:
            self._note(Try(sent, repr(error)))
            return False
        good = answer.complete and answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n")
        self._note(Try(sent, None if good else f"{answer.status}, complete: {answer.complete}: {answer.body[-200:]!r}"))
        return good and answer.header("connection") != "close"

    def _note(self, tried: Try) -> None:
        with self._lock:
            self._tries.append(tried)
