"""An engine of a few bytes: it reads a request's head and answers each connection with what it was given."""

import socket
import threading
from typing import Self


class CannedEngine:
    """Answers connection ``n`` with ``answers[n]`` (the last one for all later), then closes unless ``hold``."""

    def __init__(self, *answers: bytes, hold: bool = False) -> None:
        self._answers = answers
        self._hold = hold
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.accepted = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for connection in self._open:
            connection.close()

    def wait_and_close(self, number: int) -> None:
        """Wait for another request on connection ``number``, which is held open, and close it without a word."""
        connection = self._open[number]
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            number, self.accepted = self.accepted, self.accepted + 1
            connection.settimeout(10)
            data = b""
            while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
                data += more
            connection.sendall(self._answers[min(number, len(self._answers) - 1)])
            if self._hold:
                self._open.append(connection)
            else:
                connection.close()
