"""Basic auth for every path of the web port, against bcrypt hashes, as the Prometheus exporter toolkit does it.

1. bcrypt takes tens of milliseconds: it runs in a thread, two at a time, and its verdicts are remembered, 100 of them.
2. A user that does not exist costs as much time as a wrong password.
"""

import asyncio
import base64
import binascii
import hashlib
import os
from collections.abc import Mapping

import bcrypt
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_REMEMBERED = 100
_LONGEST = 72  # bytes of a password that bcrypt looks at


class BasicAuth:
    """ASGI middleware; without users it lets everyone through."""

    def __init__(self, app: ASGIApp, users: Mapping[str, bytes]) -> None:
        """``users`` are bcrypt hashes by name."""
        self._app = app
        self._users = users
        self._salt = os.urandom(32)
        self._verdicts: dict[bytes, bool] = {}
        self._two = asyncio.Semaphore(2)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] == "http" and self._users and not await self._admits(Headers(scope=scope)):
            answer = PlainTextResponse("Unauthorized\n", 401, {"WWW-Authenticate": 'Basic realm="inference-exporter"'})
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admits(self, headers: Headers) -> bool:
        given = _credentials(headers.get("authorization", ""))
        if given is None:
            return False
        name, password = given
        key = hashlib.sha256(self._salt + name.encode() + b"\0" + password).digest()
        if key not in self._verdicts:
            async with self._two:
                self._remember(key, verdict=await asyncio.to_thread(self._check, name, password))
        return self._verdicts[key]

    def _check(self, name: str, password: bytes) -> bool:
        stored = self._users.get(name)
        try:
            same = bcrypt.checkpw(password[:_LONGEST], stored or next(iter(self._users.values())))
        except ValueError:  # a zero byte, which no password has
            same = False
        return same and stored is not None

    def _remember(self, key: bytes, *, verdict: bool) -> None:
        while len(self._verdicts) >= _REMEMBERED:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[key] = verdict


def _credentials(header: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None
