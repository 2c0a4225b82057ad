"""The channel to the observer on the relay's loop: frames out, acknowledgements in."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from exporter import records
from exporter.relay.reporter import Reporter

_FULL = 1024 * 1024


class ObserverChannel(asyncio.Protocol):
    """One session with the observer."""

    def __init__(self, reporter: Reporter, lost: Callable[[], None]) -> None:
        """Begin a session of ``reporter`` when connected; ``lost`` is called when it ends, unless by ``close``."""
        self._reporter = reporter
        self._lost = lost
        self._frames = records.Frames()
        self._transport: asyncio.Transport | None = None

    @property
    def full(self) -> bool:
        """Whether the observer is behind."""
        return self._transport is None or self._transport.get_write_buffer_size() > _FULL

    def write(self, data: bytes) -> None:
        """Send or queue."""
        if self._transport is not None:
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new session."""
        self._transport = cast("asyncio.Transport", transport)
        self._reporter.connected(self)

    def data_received(self, data: bytes) -> None:
        """Acknowledgements."""
        try:
            messages = self._frames.feed(data)
        except ValueError:
            if self._transport is not None:
                self._transport.abort()
            return
        for message in messages:
            if isinstance(message, records.Ack):
                self._reporter.acknowledged(message.number)

    def resume_writing(self) -> None:
        """The observer caught up."""
        self._reporter.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The session is over; the supervisor will bring the next channel."""
        self._reporter.disconnected(self)
        if self._transport is not None:
            self._transport = None
            self._lost()

    def close(self) -> None:
        """End the session."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()


async def open_channel(reporter: Reporter, fd: int, lost: Callable[[], None]) -> ObserverChannel:
    """Begin a session over a connected socket, which is owned from here on."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
    _, channel = await asyncio.get_running_loop().create_unix_connection(
        lambda: ObserverChannel(reporter, lost), sock=sock
    )
    return channel
