"""How an answer's end is told to the client, whatever told it to us."""

from enum import Enum

import msgspec

from exporter.relay.upstream import AnswerHead
from exporter.wire import heads
from exporter.wire.heads import Headers

LAST_CHUNK = b"0\r\n\r\n"
_NO_BODY = (204, 304)
_UNSIZED = heads.HOP_BY_HOP | {b"content-length"}


class Head(msgspec.Struct, frozen=True, gc=False):
    """The head of a request as it was received; ``length`` is its Content-Length."""

    method: bytes
    target: bytes
    version: str
    headers: Headers
    length: int | None
    chunked: bool
    expects: bool  # to be told to go on before the body is sent
    keep: bool  # the connection is to be used again


class Framing(Enum):
    """What tells the end of an answer's body."""

    EMPTY = "empty"  # there is none
    LENGTH = "length"
    CHUNKS = "chunks"
    CLOSE = "close"  # the end of the connection


def framing(request: Head, answer: AnswerHead, *, filtered: bool) -> Framing:
    """The framing of an answer; with ``filtered`` bytes may be taken out of it."""
    if request.method == b"HEAD" or answer.status in _NO_BODY:
        return Framing.EMPTY
    if not filtered and heads.value(answer.headers, b"content-length") is not None:
        return Framing.LENGTH
    return Framing.CHUNKS if request.version == "1.1" else Framing.CLOSE


def head(request: Head, answer: AnswerHead, framed: Framing, *, close: bool) -> bytes:
    """The head of an answer as the client gets it; with ``close`` its connection ends with it."""
    sized = framed is Framing.EMPTY or framed is Framing.LENGTH
    headers = heads.end_to_end(answer.headers, heads.HOP_BY_HOP if sized else _UNSIZED)
    if framed is Framing.CHUNKS:
        headers.append((b"transfer-encoding", b"chunked"))
    if close:
        headers.append((b"connection", b"close"))
    elif request.version == "1.0":
        headers.append((b"connection", b"keep-alive"))
    return heads.write_response(answer.status, answer.reason, headers)


def chunk(data: bytes, *, last: bool = False) -> bytes:
    """A part of a chunked body, and with ``last`` its end."""
    part = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return part + LAST_CHUNK if last else part
