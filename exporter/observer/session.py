"""One relay's side of the channel protocol (exporter.records), sans I/O: bytes in, folded messages out.

1. Hello comes first and once, from the incarnation that the supervisor named.
2. Numbers rise by one. Only the first after Hello may be higher: then records were lost with a checkpoint, which is
   counted, because refusing them would lose the rest too.
3. Anything else ends the session with a ChannelError; what was folded before stays.
"""

from exporter import catalog
from exporter.observer.fold import Fold, Incarnation
from exporter.records import CaughtUp, Ended, Frames, Hello, Message, Pulse


class ChannelError(Exception):
    """What came from a relay is not what the protocol says. ``reason`` is the label it is counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Session:
    """One connection to one incarnation of a relay."""

    def __init__(self, fold: Fold, key: Incarnation) -> None:
        """Fold what comes into ``fold``."""
        self.key = key
        self.greeted = False
        self.caught_up = False
        self._fold = fold
        self._frames = Frames()
        self._first = True

    def feed(self, data: bytes) -> None:
        """Take bytes from the channel and fold what is complete."""
        try:
            messages = self._frames.feed(data)
        except ValueError as error:
            raise ChannelError("garbage", str(error)) from error
        for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        if isinstance(message, Hello):
            self._hello(message)
        elif not self.greeted:
            raise ChannelError("order", f"{type(message).__name__} before Hello")
        elif isinstance(message, Pulse | Ended):
            self._numbered(message)
        elif isinstance(message, CaughtUp):
            self.caught_up = True
        else:
            raise ChannelError("order", f"{type(message).__name__}, which a relay does not send")

    def _hello(self, hello: Hello) -> None:
        if self.greeted:
            raise ChannelError("order", "Hello twice")
        if (hello.relay, hello.boot) != self.key:
            raise ChannelError("order", f"Hello of relay {(hello.relay, hello.boot)}, expected {self.key}")
        self.greeted = True
        self._fold.hello(hello)

    def _numbered(self, message: Pulse | Ended) -> None:
        expected = self._fold.folded(self.key) + 1
        if message.number > expected and self._first:
            self._fold.count(catalog.CHANNEL_ERRORS, ("lost",))
        elif message.number != expected:
            raise ChannelError("order", f"number {message.number}, expected {expected}")
        self._first = False
        try:
            self._fold.message(self.key, message)
        except (LookupError, ValueError, TypeError) as error:  # a metric or labels that the catalogue does not know
            raise ChannelError("garbage", f"number {message.number}: {type(error).__name__}: {error}") from error
