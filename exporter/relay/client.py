"""The client's side: one connection, its requests answered in their order."""

import asyncio
from collections import deque
from time import monotonic

import httptools

from exporter import catalog, log
from exporter.relay.framing import Head
from exporter.relay.link import Link
from exporter.relay.services import Services
from exporter.relay.turn import Turn
from exporter.wire import heads
from exporter.wire.heads import Headers

MAX_HEAD = 64 * 1024
MAX_HEADERS = 256
MAX_AHEAD = 64 * 1024
MAX_WAITING = 16
HEAD_TIMEOUT = 30.0
IDLE_TIMEOUT = 75.0
_UPGRADES = (b"websocket",)


class Refused(Exception):  # noqa: N818 - it is an answer, not an error of ours
    """A request that gets an answer from the relay itself, and its connection closed."""

    def __init__(self, status: int, message: str, reason: str) -> None:
        """``reason`` is the label it is counted under."""
        super().__init__(message)
        self.status = status
        self.reason = reason


class Client(Link):
    """A client's connection.

    Requests that come before an earlier one is answered (pipelining) wait in ``_waiting``, whole as far as they were
    read; nothing more is read until their turn comes.
    """

    __slots__ = ("_ahead", "_clients", "_coming", "_ended", "_head_reads", "_headers", "_in_head", "_now",
                 "_parser", "_read", "_rest", "_services", "_since", "_target", "_turn", "_waiting",
                 "keep")  # fmt: skip

    def __init__(self, services: Services, clients: "set[Client]") -> None:
        """``clients`` is the set of all open connections."""
        super().__init__()
        self._services = services
        self._clients = clients
        self._parser = httptools.HttpRequestParser(self)
        self._headers: Headers = []
        self._target = b""
        self._head_reads = 0  # bytes read for it after the read in which it began
        self._read = 0
        self._in_head = False
        self._now = 0.0
        self._since = monotonic()  # when the connection became idle, or the head began
        self._coming: Turn | None = None  # whose request is being received
        self._turn: Turn | None = None  # whose answer is being sent
        self._waiting: deque[Pending] = deque()
        self._rest: bytes | None = None  # after an upgrade was asked for: bytes that are no HTTP any more
        self._ahead = 0  # bytes of bodies that wait
        self._ended = False  # nothing more that comes is a request
        self.keep = True

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        super().connection_made(transport)
        self._clients.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self._now = monotonic()
        if self._turn is not None and self._turn.tunnel:
            self._turn.to_engine(data)
            return
        if self._rest is not None:
            self._rest += data
            self.stop_reading()
            return
        if self._ended:
            return
        try:
            self._feed(data)
        except Refused as refused:
            self._refuse(refused)

    def _feed(self, data: bytes) -> None:
        self._read = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            cause = error.__context__
            if cause is None or isinstance(cause, Refused):
                raise cause or self._unreadable(error) from None
            log.error("a request could not be handled", error=f"{type(cause).__name__}: {cause}")
            raise Refused(500, "the relay failed to handle this request", "internal") from None
        if self._in_head:
            self._head_reads += len(data)
            self._bound(self._head_reads)

    @staticmethod
    def _unreadable(error: httptools.HttpParserError) -> Refused:
        if "PRI" in str(error):  # the preface of HTTP/2 begins with this method
            return Refused(505, "HTTP/2 is not spoken here; use HTTP/1.1 (appProtocol: http)", "http2")
        return Refused(400, f"the request is not valid HTTP/1.1: {error}", "bad_request")

    def _refuse(self, refused: Refused) -> None:
        self.keep = False
        self._ended = True
        if self._turn is not None:
            if self._turn is self._coming or refused.reason == "internal":
                self._turn.refuse(refused.status, str(refused), refused.reason)
            return  # an answer is being sent; it is the last one
        self._services.reporter.count(catalog.REFUSED, (refused.reason,))
        self.write(heads.error(refused.status, str(refused), heads.refusal(refused.status), close=True))
        self.close()

    def eof_received(self) -> None:
        """The client closes; connection_lost follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, and with it every reason to go on."""
        super().connection_lost(exc)
        self._clients.discard(self)
        self.keep = False
        self._waiting.clear()
        if self._turn is not None:
            self._turn.client_gone()

    def pause_writing(self) -> None:
        """The client takes its answer slower than the engine gives it."""
        self.blocked = True
        if self._turn is not None:
            self._turn.client_slow()

    def resume_writing(self) -> None:
        """It takes bytes again."""
        self.blocked = False
        if self._turn is not None:
            self._turn.client_ready()

    # httptools

    def on_message_begin(self) -> None:
        """A head begins."""
        self._headers = []
        self._target = b""
        self._in_head = True
        self._head_reads = -self._read  # the read in which it began may hold much else
        self._since = self._now

    def on_url(self, url: bytes) -> None:
        """The target, or a part of it."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def _bound(self, size: int) -> None:
        """Refuse a head that is too large. Looked at once a read and at its end: one read cannot hold too much."""
        if size > MAX_HEAD or len(self._headers) > MAX_HEADERS:
            text = f"the request's headers are larger than {MAX_HEAD} bytes or more than {MAX_HEADERS}"
            raise Refused(431, text, "head_too_large")

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        if self._ended:
            return
        self._bound(len(self._target) + sum([len(name) + len(value) for name, value in self._headers]))
        turn = Turn(self, self._services, self._head())
        turn.upgrade = self._upgrade()
        self._coming = turn
        if self._turn is None:
            self._turn = turn
            turn.begin()
        else:
            self._waiting.append(Pending(turn))
            self._hold(0)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        turn = self._coming
        if turn is None or turn.over:
            return
        if turn is self._turn:
            turn.body(body)
        else:
            self._waiting[-1].body.append(body)
            self._hold(len(body))

    def _hold(self, size: int) -> None:
        """Count what waits behind the current answer. Some is read ahead, so that a client that leaves is seen."""
        self._ahead += size
        if self._ahead > MAX_AHEAD or len(self._waiting) > MAX_WAITING:
            self.stop_reading()

    def on_message_complete(self) -> None:
        """The request is complete."""
        turn, self._coming = self._coming, None
        if turn is None or turn.over:
            return
        self._ended = self._ended or not turn.head.keep
        if turn is self._turn:
            turn.received(self._now)
        else:
            self._waiting[-1].received = True

    def _head(self) -> Head:
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise Refused(505, f"HTTP/{version} is not spoken here; use HTTP/1.1", "version")
        first = heads.first(self._headers)
        hosts = [name for name, _ in self._headers].count(b"host")
        if hosts > 1 or (version == "1.1" and not hosts):
            raise Refused(400, f"the request has {hosts} Host headers; it must have one", "bad_request")
        encoding = first.get(b"transfer-encoding")
        if encoding is not None and encoding.strip().lower() != b"chunked":
            coding = encoding.decode("latin-1")
            raise Refused(501, f"Transfer-Encoding {coding!r} is not supported; use chunked", "transfer_encoding")
        length = first.get(b"content-length")
        return Head(
            method=self._parser.get_method(),
            target=_path(self._target),
            version=version,
            headers=self._headers if hosts else [(b"host", self._services.pool.name.encode()), *self._headers],
            length=None if length is None else int(length),
            chunked=encoding is not None,
            expects=version == "1.1" and first.get(b"expect", b"").lower() == b"100-continue",
            keep=bool(self._parser.should_keep_alive()),
        )

    def _upgrade(self) -> bool:
        """Whether a WebSocket is asked for; other upgrades are refused."""
        if not self._parser.should_upgrade():
            return False
        wanted = (heads.value(self._headers, b"upgrade") or b"").strip().lower()
        if wanted in _UPGRADES:
            return True
        name = wanted.decode("latin-1") or self._parser.get_method().decode()
        raise Refused(501, f"an upgrade to {name!r} is not supported; use HTTP/1.1 or a WebSocket", "upgrade")

    # Turns

    def turn_over(self, turn: Turn, *, keep: bool) -> None:
        """A turn ended; with ``keep`` the connection is good for the next."""
        if turn is not self._turn:
            return
        self._turn = None
        self._since = monotonic()
        if not (keep and self.keep and turn.head.keep) or (self._rest is not None and not self._waiting):
            self.keep = False
            self._ended = True
            self._waiting.clear()
            self.close()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self.go_on_reading()

    def _next(self) -> None:
        """Begin the next request of a pipeline."""
        if self._turn is not None or not self._waiting:
            return
        pending = self._waiting.popleft()
        self._turn = turn = pending.turn
        turn.begin()
        for data in pending.body:
            if not turn.over:
                turn.body(data)
        if pending.received and not turn.over:
            turn.received(self._now)
        if not self._waiting:
            self._ahead = 0
            self.go_on_reading()

    def switched(self) -> None:
        """The connection is a tunnel now: what came early goes on."""
        if self._rest and self._turn is not None:
            self._turn.to_engine(self._rest)
        self._rest = b""
        self.go_on_reading()

    def check(self, now: float) -> None:
        """Close the connection if it was idle, or within one head, for too long."""
        if self._turn is not None:
            self._turn.check(now)
        elif self._in_head and now - self._since > HEAD_TIMEOUT:
            self._refuse(
                Refused(408, f"the request's headers did not arrive within {HEAD_TIMEOUT:g} s", "head_timeout")
            )
        elif now - self._since > IDLE_TIMEOUT:
            self.close() if self.open else self.abort()  # a client that does not take its last answer is cut

    def drain(self) -> None:
        """No more requests on this connection; an idle one is closed."""
        self.keep = False
        if self._turn is None and not self._in_head:
            self.close()


def _path(target: bytes) -> bytes:
    """The path and query of a target; the absolute form is for proxies, and its host is in the Host header too."""
    if not target.startswith((b"http://", b"https://")):
        return target
    return b"/" + target.partition(b"://")[2].partition(b"/")[2]


class Pending:
    """A pipelined request that waits for its turn."""

    __slots__ = ("body", "received", "turn")

    def __init__(self, turn: Turn) -> None:
        """Nothing of its body was read yet."""
        self.turn = turn
        self.body: list[bytes] = []
        self.received = False
