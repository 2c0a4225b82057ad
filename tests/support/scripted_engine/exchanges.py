"""What happened to each request, in moments of the monotonic clock (seconds), safe to read from another thread."""

import collections
import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.waiting import DEADLINE, DeadlineError

KEEP = 10_000
KEEP_BODY = 1 << 20


@dataclasses.dataclass(slots=True)
class Exchange:
    """One request as the engine saw it; a moment that has not come is None."""

    number: int
    connection: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    """Names in lower case, in the order received."""
    began: float
    """The request's head was complete."""
    body: bytes = b""
    """The first MiB."""
    body_length: int = 0
    complete: float | None = None
    headers_sent: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    tokens: list[float] = dataclasses.field(default_factory=list)
    """The moment of each token-bearing write."""
    ended: float | None = None
    """The last byte was written; or the engine cut the connection, as scripted."""
    stalled: float = 0.0
    """Seconds in which the peer did not take what was to be written."""
    held: float | None = None
    """Since when the peer does not take more; None while it does."""
    disconnected: float | None = None
    """The peer closed before the end."""
    phase: str | None = None
    """Where the answer was when the peer closed: request, headers, prefill or decode."""

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def over(self) -> bool:
        """Ended or disconnected."""
        return self.ended is not None or self.disconnected is not None

    @property
    def where(self) -> str:
        """The phase the answer is in now."""
        if self.complete is None:
            return "request"
        if self.headers_sent is None:
            return "headers"
        return "prefill" if self.first_token is None else "decode"

    def as_json(self) -> dict[str, object]:
        """Plain values; the body as text."""
        return dataclasses.asdict(self) | {"body": self.body.decode("utf-8", "replace")}


class Log:
    """The last exchanges, oldest first, with a bell for whoever waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._exchanges: collections.deque[Exchange] = collections.deque(maxlen=KEEP)
        self._made = 0

    def new(self, connection: int, method: str, target: str, headers: list[tuple[str, str]], at: float) -> Exchange:
        """Begin an exchange."""
        with self.change():
            self._made += 1
            exchange = Exchange(self._made, connection, method, target, headers, at)
            self._exchanges.append(exchange)
        return exchange

    @contextmanager
    def change(self) -> Iterator[None]:
        """Hold the log still while an exchange is written to; then ring."""
        with self._changed:
            yield
            self._changed.notify_all()

    def select(self, path: str | None = None) -> list[Exchange]:
        """The exchanges so far, of one path or all, as copies that do not move."""
        with self._changed:
            return [
                dataclasses.replace(one, tokens=list(one.tokens))
                for one in self._exchanges
                if path is None or one.path == path
            ]

    def wait(
        self, condition: Callable[[list[Exchange]], bool], path: str | None, within: float = DEADLINE
    ) -> list[Exchange]:
        """The exchanges, once `condition` holds for them."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self.select(path)), within):
                raise DeadlineError(f"not within {within:g} s; the engine's log: {self.select(path)}")
            return self.select(path)

    def clear(self) -> None:
        """Forget every exchange."""
        with self._changed:
            self._exchanges.clear()
