"""A very small HTTP/1.1 server for health answers: bounded heads, bodies, connections and patience."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import httptools

from exporter.supervisor.sockets import is_local

MAX_REQUEST = 8 * 1024  # bytes of one request, head and body
MAX_CONNECTIONS = 256  # the oldest goes when another comes: whoever hoards them cannot fail a probe
LAST_ANSWERS = 1.0  # seconds for the answers that are due at the end
PATIENCE = 30.0  # seconds for a whole request to arrive, also on a connection kept alive


@dataclass(frozen=True, slots=True)
class Request:
    """``local``: the peer is on this machine. ``from_page``: a browser sent it for a web page."""

    method: str
    path: str
    local: bool
    from_page: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and one line of text."""

    status: HTTPStatus
    text: str
    allow: str = ""

    def encode(self, *, keep_alive: bool, head: bool) -> bytes:
        """As it goes over the wire; ``head`` leaves the body out."""
        body = f"{self.text}\n".encode()
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            *([f"Allow: {self.allow}"] if self.allow else []),
            f"Connection: {'keep-alive' if keep_alive else 'close'}",
        ]
        return "\r\n".join((*lines, "", "")).encode() + (b"" if head else body)


Handler = Callable[[Request], Awaitable[Answer]]


class Server:
    """All connections of the health port."""

    def __init__(self, handler: Handler) -> None:
        """Answers with ``handler``."""
        self.handler = handler
        self.connections: dict[Connection, None] = {}  # oldest first

    def connection(self) -> "Connection":
        """The protocol factory."""
        return Connection(self)

    async def close(self) -> None:
        """Give the answers that are due, then close."""
        due = [connection.task for connection in self.connections if connection.task is not None]
        if due:
            await asyncio.wait(due, timeout=LAST_ANSWERS)
        for connection in list(self.connections):
            connection.close()
        await asyncio.sleep(0)  # the loop closes them on its next turn


class Connection(asyncio.Protocol):
    """One client: one request at a time."""

    def __init__(self, server: Server) -> None:
        """Not connected yet."""
        self._server = server
        self._transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._local = False
        self._begin()

    def _begin(self) -> None:
        """Expect a request."""
        self._parser = httptools.HttpRequestParser(self)
        self._received = 0
        self._url = b""
        self._from_page = False
        if self._transport is not None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._transport.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._transport = cast("asyncio.Transport", transport)
        self._local = is_local(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        connections = self._server.connections
        if len(connections) >= MAX_CONNECTIONS:
            next(iter(connections)).abort()
        connections[self] = None
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """The client left."""
        self._server.connections.pop(self, None)
        self._stop_timer()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self._received += len(data)
        if self.task is not None or self._received > MAX_REQUEST:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"at most {MAX_REQUEST} bytes, one at a time")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.BAD_REQUEST, "HTTP/1.1 only, without upgrade")
        except httptools.HttpParserError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"HTTP/1.1 only: {error}")

    def on_url(self, url: bytes) -> None:
        """From the parser: a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002 - the parser's signature
        """From the parser: browsers mark what pages send across origins."""
        self._from_page = self._from_page or name.lower() in (b"origin", b"sec-fetch-site")

    def on_message_complete(self) -> None:
        """From the parser: a whole request."""
        if self.task is not None:
            raise httptools.HttpParserCallbackError("pipelined")
        if self._parser.should_upgrade():
            return  # the parser says so next
        self._stop_timer()
        path = self._url.partition(b"?")[0].decode("ascii", "replace")
        request = Request(self._parser.get_method().decode("ascii"), path, self._local, self._from_page)
        keep_alive = self._parser.should_keep_alive()
        self.task = asyncio.get_running_loop().create_task(self._answer(request, keep_alive=keep_alive))

    def close(self) -> None:
        """Close when everything is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._server.connections.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    async def _answer(self, request: Request, *, keep_alive: bool) -> None:
        answer = await self._server.handler(request)
        self._write(answer, keep_alive=keep_alive, head=request.method == "HEAD")
        self.task = None
        self._begin()

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        if self.task is not None:  # an answer is due first, so this one cannot be told why
            self.close()
            return
        self._write(Answer(status, text), keep_alive=False, head=False)

    def _write(self, answer: Answer, *, keep_alive: bool, head: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(answer.encode(keep_alive=keep_alive, head=head))
        if not keep_alive:
            transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
