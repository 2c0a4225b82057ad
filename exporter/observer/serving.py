"""uvicorn on a socket that the supervisor owns: no signals, no lifespan, no log of its own."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from exporter.observer.webconfig import WebConfig


class _Server(uvicorn.Server):
    """Says when it serves and leaves signals alone."""

    def __init__(self, config: uvicorn.Config, serves: Callable[[], None]) -> None:
        super().__init__(config)
        self._serves = serves

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._serves()


async def serve(app: ASGIApp, listening: socket.socket, protection: WebConfig, serves: Callable[[], None]) -> None:
    """Serve until cancelled; ``serves`` is called once requests are answered."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=protection.cert_file,
        ssl_keyfile=protection.key_file,
    )
    server = _Server(config, serves)
    try:
        await server.serve([listening])
    finally:
        for one in getattr(server, "servers", ()):  # there from startup on
            one.close()
        listening.close()
