"""An engine that is a function: what it does with each connection is written in the test, byte by byte."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

LINGER_NOT = b"\1\0\0\0\0\0\0\0"


class Played:
    """One connection from the relay; ``number`` counts them from 0."""

    def __init__(self, number: int, sock: socket.socket, engine: "PlayedEngine") -> None:
        self.number = number
        self._socket = sock
        self._engine = engine

    def head(self) -> bytes:
        """The next request's head, with what came behind it; noted in the engine's ``requests``."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.read()
        self._engine.requests.append(data)
        return data

    def read(self) -> bytes:
        """What comes next."""
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionAbortedError("the relay closed the connection")
        return data

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_buffer(self, size: int) -> None:
        """Let the kernel take so many bytes at once, though nobody reads them yet."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def hold(self, seconds: float = 30) -> None:
        """Do nothing for so long, or until the test is over."""
        self._engine.over.wait(seconds)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Close with an RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self._socket.close()


class PlayedEngine:
    """Each connection is given to ``play`` in a thread of its own, and left open when that returns."""

    def __init__(
        self,
        play: Callable[[Played], None],
        *,
        receive_buffer: int | None = None,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> None:
        self._play = play
        self._listener = socket.socket(family)
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self._listener.bind((host, 0))
        self._listener.listen(128)
        port = self._listener.getsockname()[1]
        self.url = f"http://{host}:{port}" if family == socket.AF_INET else f"http://[{host}]:{port}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self.requests: list[bytes] = []
        self.over = threading.Event()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for connection in self._open:
            connection.close()

    @property
    def accepted(self) -> int:
        """Connections ever accepted."""
        return len(self._open)

    def asked(self, target: str) -> int:
        """How many requests for this target came so far."""
        return sum(one.split(b" ", 2)[1] == target.encode() for one in list(self.requests))

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            played = Played(len(self._open) - 1, sock, self)
            thread = threading.Thread(target=self._act, args=(played,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _act(self, played: Played) -> None:
        with contextlib.suppress(OSError):  # the relay left, or the test did
            self._play(played)


def get(target: str = "/", *headers: str) -> bytes:
    """A GET without a body."""
    return ("\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *headers]) + "\r\n\r\n").encode()


def answer(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    """An answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
