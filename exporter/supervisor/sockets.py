"""The listening sockets and the observer's checkpoint: what outlives every child."""

import os
import socket
import tempfile
from dataclasses import dataclass
from typing import IO

from exporter.config import Address, Config

BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn


class ListenError(Exception):
    """An address cannot be listened on; the message names the option and the address."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """The three listening sockets and the checkpoint's file."""

    clients: socket.socket
    web: socket.socket
    health: socket.socket
    checkpoint: IO[bytes]

    def close(self) -> None:
        """Close all of them."""
        for each in (self.clients, self.web, self.health, self.checkpoint):
            each.close()


def open_all(config: Config) -> Sockets:
    """Everything that the configuration asks for, or ListenError and nothing."""
    wanted = (
        ("listen", config.listen),
        ("web.listen-address", config.web_listen_address),
        ("health.listen-address", config.health_listen_address),
    )
    opened: list[socket.socket] = []
    try:
        for option, address in wanted:
            opened.append(listen(option, address))
    except ListenError:
        for each in opened:
            each.close()
        raise
    return Sockets(opened[0], opened[1], opened[2], memory_file())


def listen(option: str, address: Address) -> socket.socket:
    """A listening TCP socket that does not block; ``::`` takes IPv4 too."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refusal(option, address, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address.host != "::"))
        sock.setblocking(False)  # noqa: FBT003 - the name says it
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _refusal(option, address, error) from error
    return sock


def _refusal(option: str, address: Address, error: OSError) -> ListenError:
    return ListenError(f"--{option}: cannot listen on {address}: {error.strerror or error}")


def memory_file() -> IO[bytes]:
    """An anonymous file in memory where the kernel has such, else an unlinked temporary one."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("inference-exporter-checkpoint"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def is_local(peer: object, own: object) -> bool:
    """Whether a connection between these socket names begins on this machine."""
    host, here = _host(peer), _host(own)
    return host is not None and (host == here or host.startswith("127.") or host == "::1")


def _host(name: object) -> str | None:
    if not (isinstance(name, tuple) and name and isinstance(name[0], str)):
        return None
    return name[0].removeprefix("::ffff:")
