"""The engine's side: one connection that reads one answer at a time."""

from time import monotonic
from typing import TYPE_CHECKING

import httptools
import msgspec

from exporter.relay.link import Link
from exporter.wire.heads import Headers

if TYPE_CHECKING:
    from exporter.relay.pool import Pool
    from exporter.relay.turn import Turn

_SWITCHING = 101
_FIRST_FINAL = 200
_FRAMING = (b"content-length", b"transfer-encoding")


class AnswerHead(msgspec.Struct, frozen=True, gc=False):
    """Status line and headers of an answer, as they were received."""

    status: int
    reason: bytes
    headers: Headers


class Upstream(Link):
    """A connection to the engine: free in the pool, or working for one turn."""

    __slots__ = ("_answer", "_complete", "_head", "_headers", "_keep", "_parser", "_pieces", "_pool", "_reason",
                 "_skip", "answered", "free_since", "muted", "on_body", "pooled", "turn")  # fmt: skip

    def __init__(self, pool: "Pool") -> None:
        """A connection that belongs to ``pool`` when it is free."""
        super().__init__()
        self._pool = pool
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # httptools calls it for each part of the body: a method would only do this
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._reason = b""
        self._head: AnswerHead | None = None
        self._complete = False
        self._keep = False
        self._skip = False
        self.turn: Turn | None = None
        self.answered = False  # a byte of the current answer was read
        self._answer: Headers = []  # the headers of the current answer
        self.muted = False
        self.pooled = False  # it was free before: the engine may be closing it just now
        self.free_since = 0.0

    @property
    def until_close(self) -> bool:
        """Whether the answer ends with the connection, because nothing else frames it."""
        return not any(name in _FRAMING for name, _ in self._answer)

    def start(self, turn: "Turn") -> None:
        """Work for a turn."""
        self.turn = turn
        self.answered = False
        self.go_on_reading()

    # asyncio

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer."""
        at = monotonic()
        turn = self.turn
        if turn is None:
            self.abort()  # nobody asked: whatever it is, the next answer must not begin with it
            return
        self.answered = True
        if turn.tunnel:
            turn.client.write(data)
            return
        rest = b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self._complete:
                turn.answer_broken(f"the engine's answer is not HTTP/1.1: {error}")
                return
            self._keep = False  # bytes behind the answer's end are nobody's: no other answer may begin with them
        if self._head is not None or self._complete:
            self._deliver(turn, at, rest)
        elif len(self._pieces) == 1:
            turn.more(at, self._pieces.pop())
        elif self._pieces:
            turn.more(at, self._taken())

    def _deliver(self, turn: "Turn", at: float, rest: bytes) -> None:
        """A read with the answer's head or end in it."""
        head, self._head = self._head, None
        if head is not None and head.status == _SWITCHING:
            turn.switched(head, rest)
            return
        if head is not None and turn.head.method == b"HEAD":
            self._keep, self._complete = False, True  # the parser would wait for a body
            self._pieces.clear()
        complete, self._complete = self._complete, False
        keep = self._keep and not turn.uploading
        if complete:
            self.turn = None
        turn.answer(at, head, self._taken(), complete=complete)
        if complete and keep and self.drained:
            self._pool.give_back(self)
        elif complete:
            self.close()

    def _taken(self) -> bytes:
        """The body's parts that the last read brought."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body

    def mute(self) -> None:
        """The engine takes no more of the request: what it says about that (a 413, perhaps) is still to be read."""
        self._direct = False
        self._fd = -1
        self.muted = True

    def write(self, data: bytes) -> None:
        """Send bytes, unless the engine has stopped taking them."""
        if not self.muted:
            super().write(data)

    def eof_received(self) -> None:
        """The engine closes; connection_lost follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine is gone: the end of an answer without a length, or a cut."""
        super().connection_lost(exc)
        self._pool.forget(self)
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.answer_over(monotonic(), self, clean=exc is None)

    def pause_writing(self) -> None:
        """The engine takes the request slower than the client sends it."""
        self.blocked = True
        if self.turn is not None:
            self.turn.client.stop_reading()

    def resume_writing(self) -> None:
        """It takes bytes again."""
        self.blocked = False
        if self.turn is not None:
            self.turn.active_at = monotonic()
            self.turn.client.go_on_reading()

    # httptools

    def on_message_begin(self) -> None:
        """A head begins; one behind the end of the answer, in the same read, is not looked at."""
        if self._complete:
            raise ValueError("a message behind the answer's end")
        self._headers = []
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, or a part of it."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete; interim answers (1xx) are between the engine and us."""
        status = self._parser.get_status_code()
        self._skip = status < _FIRST_FINAL and status != _SWITCHING
        if not self._skip:
            self._keep = self._parser.should_keep_alive()
            self._answer = self._headers
            self._head = AnswerHead(status, self._reason, self._headers)
        self._headers = []  # what follows the body are trailers, which nobody asked for

    def on_message_complete(self) -> None:
        """The answer is complete."""
        if not self._skip:
            self._complete = True
