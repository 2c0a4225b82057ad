"""One connection to the scripted engine: requests in, scripts played, WebSocket-like upgrades echoed."""

import asyncio
import hashlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import httptools
import msgspec

from support.scripted_engine.answers import Mark, Shape, Step, answer, head
from support.scripted_engine.exchanges import KEEP_BODY, Exchange, Log
from support.scripted_engine.play import Play
from support.scripted_engine.script import Script, read_ask, read_script

RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Shared:
    """What all connections of one engine have in common."""

    log: Log
    default: Script
    keep_alive: float | None = None
    """Idle seconds after which the engine closes a connection, as uvicorn does after 5; None: never."""
    models: tuple[str, ...] = ("scripted",)
    open: set["Connection"] = field(default_factory=set)
    accepted: int = 0


class Connection(asyncio.Protocol):
    """The server side of one TCP connection."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._exchange: Exchange | None = None
        self._play: Play | None = None
        self._idle: asyncio.Handle | None = None
        self._upgraded = False
        self._keep = True
        self._script: Script | None = None

    def abort(self) -> None:
        """Close at once, unsaid."""
        self._transport.abort()

    # transport -> us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._shared.accepted += 1
        self._shared.open.add(self)
        self._number = self._shared.accepted
        self._begin_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.open.discard(self)
        if self._play is not None:
            self._play.stop()
        if self._idle is not None:
            self._idle.cancel()
        if self._exchange is not None and not self._exchange.over:
            with self._shared.log.change():
                self._exchange.disconnected, self._exchange.phase = time.monotonic(), self._exchange.where

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            self._transport.write(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._echo_from(data[upgrade.args[0] :])
        except httptools.HttpParserError as wrong:
            self._refuse(400, f"not HTTP/1.1: {wrong}")

    def pause_writing(self) -> None:
        if self._play is not None:
            self._play.pause()

    def resume_writing(self) -> None:
        if self._play is not None:
            self._play.resume()

    # parser -> us

    def on_url(self, url: bytes) -> None:
        self._target += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        method = self._parser.get_method().decode()
        self._exchange = self._shared.log.new(self._number, method, self._target, self._headers, time.monotonic())
        if (self._exchange.header("expect") or "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._obey_head(self._exchange)

    def on_body(self, body: bytes) -> None:
        self._length += len(body)
        self._hash.update(body)
        if self._exchange is not None and self._exchange.path != "/upload" and len(self._body) < KEEP_BODY:
            self._body += body

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.over:
            return
        self._keep = self._parser.should_keep_alive()  # the parser forgets it after this call
        with self._shared.log.change():
            exchange.complete = time.monotonic()
            exchange.body, exchange.body_length = bytes(self._body[:KEEP_BODY]), self._length
        if not self._parser.should_upgrade():
            self._route(exchange)

    # what it does

    def _begin_request(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._target = ""
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self._length = 0
        self._hash = hashlib.sha256()
        self._play = self._script = None
        if self._shared.keep_alive is not None:
            self._idle = asyncio.get_running_loop().call_later(self._shared.keep_alive, self._transport.close)

    def _obey_head(self, exchange: Exchange) -> None:
        """The part of a script that cannot wait for the body: it must come in the header."""
        scripted = exchange.header("x-script")
        if scripted is None:
            return
        try:
            script = msgspec.json.decode(scripted, type=Script)
        except msgspec.DecodeError as wrong:
            self._refuse(400, f"x-script: {wrong}")
            return
        if script.reset_at == "accept":
            self._cut(script.cut_by)
        elif script.read_after:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(script.read_after, self._transport.resume_reading)

    def _route(self, exchange: Exchange) -> None:
        plain: dict[str, Callable[[], object]] = {
            "/health": dict,
            "/v1/models": self._models,
            "/upload": lambda: {"length": self._length, "sha256": self._hash.hexdigest()},
            "/__log": self._log_answer,
        }
        if exchange.path in plain:
            self._begin_play(exchange, _json_steps(200, plain[exchange.path]()))
        else:
            self._answer(exchange)

    def _answer(self, exchange: Exchange) -> None:
        try:
            ask = read_ask(bytes(self._body))
            script = read_script(exchange.header("x-script"), ask, self._shared.default)
        except msgspec.DecodeError as wrong:
            self._refuse(400, f"script: {wrong}")
            return
        chat = exchange.path == "/v1/chat/completions"
        if not chat and exchange.path != "/v1/completions" and script.raw is None and script.status == 200:
            self._refuse(404, f"no such route here without a `raw` script: {exchange.path}")
            return
        self._script = script
        shape = Shape(chat, ask.model, exchange.header("x-request-id") or str(exchange.number))
        self._begin_play(exchange, answer(script, ask, shape))

    def _begin_play(self, exchange: Exchange, steps: Iterator[Step]) -> None:
        kept = self._script is None or self._script.log_tokens
        self._play = Play(steps, exchange, self._shared.log, self._transport, self._finished, log_tokens=kept)
        self._play.start()

    def _finished(self, mark: Mark) -> None:
        if mark is Mark.RESET:
            self._cut(self._script.cut_by if self._script else "rst")
        elif self._closes():
            self._transport.close()
        else:
            self._begin_request()

    def _closes(self) -> bool:
        script = self._script
        if script is not None and (script.framing == "close" or script.headers.get("connection") == "close"):
            return True
        return not self._keep

    def _models(self) -> object:
        models = [{"id": name, "object": "model", "owned_by": "support"} for name in self._shared.models]
        return {"object": "list", "data": models}

    def _log_answer(self) -> object:
        kept = [one.as_json() for one in self._shared.log.select() if one.path != "/__log"]
        return {"now": time.monotonic(), "accepted": self._shared.accepted, "exchanges": kept}

    def _refuse(self, status: int, why: str) -> None:
        body = msgspec.json.encode(
            {"error": {"message": why, "type": "BadRequestError", "param": None, "code": status}}
        )
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        self._transport.write(head(status, headers) + body)
        self._end()
        self._transport.close()

    def _cut(self, how: str) -> None:
        self._end()
        if how == "rst":
            raw: socket.socket = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()
        else:
            self._transport.close()

    def _end(self) -> None:
        if self._exchange is not None and self._exchange.ended is None:
            with self._shared.log.change():
                self._exchange.ended = time.monotonic()

    def _echo_from(self, rest: bytes) -> None:
        assert self._exchange is not None
        upgrade = {"upgrade": self._exchange.header("upgrade") or "", "connection": "upgrade"}
        self._transport.write(head(101, upgrade) + rest)
        self._upgraded = True


def _json_steps(status: int, value: object) -> Iterator[Step]:
    body = msgspec.json.encode(value)
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    yield Step(0.0, head(status, headers) + body, Mark.HEADERS)
    yield Step(0.0, b"", Mark.END)
