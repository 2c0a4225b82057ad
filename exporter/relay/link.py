"""One side's connection: bytes written to the socket at once where it takes them, and who waits for it."""

import asyncio
import os
from typing import cast


class Link(asyncio.Protocol):
    """What the client's and the engine's connection have in common.

    ``write`` calls the kernel itself while nothing is queued: uvloop would put the call off to the end of the loop's
    iteration, behind the reads and the measuring of all other connections that are ready in it.
    """

    __slots__ = ("_direct", "_fd", "blocked", "stopped", "transport")

    def __init__(self) -> None:
        """Not connected yet."""
        self.transport: asyncio.Transport | None = None
        self.blocked = False  # it takes bytes slower than we have them
        self.stopped = False  # we take no bytes from it
        self._fd = -1
        self._direct = False  # nothing is queued: the socket may be written to

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sslcontext") is None:
            self._fd = transport.get_extra_info("socket").fileno()
            self._direct = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Gone."""
        self._direct = False
        self._fd = -1
        self.transport = None

    @property
    def open(self) -> bool:
        """Whether it can still be written to."""
        return self.transport is not None and not self.transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send bytes, or queue what the socket does not take; nothing happens on a connection that is gone."""
        if self._direct:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.mute()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._queue(data)

    def mute(self) -> None:
        """The other side takes no more bytes, whatever it may still have to say."""
        self.abort()

    @property
    def drained(self) -> bool:
        """Whether everything that was written has left, on a connection that is open."""
        return self._direct or (self.open and not self.blocked and not self._left())

    def _left(self) -> int:
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def _queue(self, data: bytes) -> None:
        transport = self.transport
        if transport is None or transport.is_closing() or not data:
            return
        if self._fd >= 0 and not self._direct and not transport.get_write_buffer_size():
            self._direct = True  # what was queued is gone
            self.write(data)
            return
        self._direct = False
        transport.write(data)

    def close(self) -> None:
        """Close after what is queued was sent."""
        self._direct = False
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now."""
        self._direct = False
        if self.transport is not None:
            self.transport.abort()

    def stop_reading(self) -> None:
        """Take no more bytes from this side for now."""
        if self.transport is not None and not self.stopped and not self.transport.is_closing():
            self.stopped = True
            self.transport.pause_reading()

    def go_on_reading(self) -> None:
        """Take bytes again."""
        if self.stopped and self.transport is not None and not self.transport.is_closing():
            self.stopped = False
            self.transport.resume_reading()
