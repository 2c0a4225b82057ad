"""Asking a running sidecar, from the same machine or pod, to drain; what a preStop hook does."""

import contextlib
import http.client

from exporter.config import Address

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where such a server is reached from here
_BEGIN_WITHIN = 10.0
_END_WITHIN = 8 * 86400.0  # the sidecar bounds its drain itself; this is above the longest it accepts


def drain(address: Address, begin_within: float = _BEGIN_WITHIN, end_within: float = _END_WITHIN) -> str | None:
    """Begin to drain and wait until nothing is in flight; why it failed, or ``None``. Limits in seconds."""
    host = _LOOPBACK.get(address.host, address.host)
    where = Address(host, address.port)
    try:
        _ask(where, "POST", "/-/drain", begin_within, http.client.ACCEPTED)
    except (OSError, http.client.HTTPException) as error:
        return f"no sidecar answers on {where}: {error}"
    try:
        _ask(where, "GET", "/-/drained", end_within, http.client.OK)
    except (OSError, http.client.HTTPException) as error:
        return f"the sidecar on {where} did not say that it is drained: {error}"
    return None


def _ask(where: Address, method: str, path: str, within: float, expected: int) -> None:
    connection = http.client.HTTPConnection(where.host, where.port, timeout=within)
    with contextlib.closing(connection):
        connection.request(method, path, body=b"" if method == "POST" else None)
        answer = connection.getresponse()
        text = answer.read(1024).decode("utf-8", "replace").strip()
        if answer.status != expected:
            raise http.client.HTTPException(f"{method} {path} answered {answer.status} {text}")
