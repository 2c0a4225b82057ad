"""A client that says exactly what it is told to, and keeps what comes back with its moments."""

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httptools


@dataclass(slots=True)
class Answer:
    """One HTTP answer as it was received; ``moments`` are of each read that held a part of its body."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False
    moments: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(part for _, part in self.moments)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def error(self) -> dict[str, object]:
        """The error object of an OpenAI-shaped error."""
        found: dict[str, object] = json.loads(self.body)["error"]
        return found


class _Reader:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.parser = httptools.HttpResponseParser(self)
        self.now = 0.0

    def on_message_begin(self) -> None:
        self.answers.append(Answer())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answers[-1].headers.append((name.decode(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.answers[-1].status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.answers[-1].moments.append((self.now, body))

    def on_message_complete(self) -> None:
        self.answers[-1].complete = True


class RawClient:
    """A connection to ``port`` on loopback; it waits ``patience`` seconds for each step."""

    def __init__(self, port: int, *, receive_buffer: int | None = None, patience: float = 20) -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(patience)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = _Reader()
        self.received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> float:
        """Send bytes; the moment right after."""
        self._socket.sendall(data)
        return time.monotonic()

    def post(self, path: str, body: bytes | dict[str, object], *headers: str) -> float:
        """Send a POST with its length; the moment right after."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = [f"POST {path} HTTP/1.1", "Host: engine", "Content-Type: application/json", *headers]
        return self.send("\r\n".join([*head, f"Content-Length: {len(raw)}", "", ""]).encode() + raw)

    def read(self, size: int = 65536) -> bytes:
        """What comes next; empty at the end. The bytes go to ``answers`` too."""
        data = self._socket.recv(size)
        self._reader.now = time.monotonic()
        self.received += data
        if data:
            self._reader.parser.feed_data(data)
        return data

    def read_raw(self, size: int = 65536) -> bytes:
        """What comes next, not understood as HTTP."""
        return self._socket.recv(size)

    def answer(self, number: int = 0) -> Answer:
        """An answer, read until it is complete or the connection ends."""
        while len(self.answers) <= number or not self.answers[number].complete:
            if not self.read():
                break
        return self.answers[number] if len(self.answers) > number else Answer()

    def ended(self) -> bool:
        """Whether the other side closes, without another byte of HTTP."""
        try:
            return self._socket.recv(65536) == b""
        except ConnectionResetError:
            return True

    @property
    def answers(self) -> list[Answer]:
        """The final answers that began so far; interim ones (1xx) are left out."""
        return [answer for answer in self._reader.answers if answer.status == 0 or answer.status >= 200]

    def reset(self) -> None:
        """Leave with an RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._socket.close()

    def close(self) -> None:
        """Leave with a FIN."""
        self._socket.close()


def chat(script: Mapping[str, object] | None = None, *, stream: bool = True, **more: Any) -> dict[str, object]:
    """The body of a chat completion that the scripted engine answers as told."""
    body: dict[str, object] = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return {**body, **({"script": script} if script is not None else {}), **more}


CHAT = "/v1/chat/completions"
