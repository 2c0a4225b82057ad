"""HTTP/1.1 heads: what a proxy must not pass on, and how a head is written.

Header names are lower case everywhere inside, and written as they were received.
"""

from collections.abc import Iterable

import msgspec

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"te", b"trailer",
     b"transfer-encoding", b"upgrade")
)  # fmt: skip

REASONS = {
    200: b"OK", 204: b"No Content", 400: b"Bad Request", 404: b"Not Found", 408: b"Request Timeout",
    413: b"Content Too Large", 417: b"Expectation Failed", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip


def value(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header, by its lower-case name."""
    for key, found in headers:
        if key.lower() == name:
            return found
    return None


def end_to_end(headers: Headers, drop: Iterable[bytes] = ()) -> Headers:
    """The headers that may be passed on: no hop-by-hop ones, none that Connection lists, none of ``drop``."""
    gone = _HOP_BY_HOP.union(drop)
    for key, found in headers:
        if key.lower() == b"connection":
            gone = gone.union(token.strip() for token in found.lower().split(b","))
    return [(key, found) for key, found in headers if key.lower() not in gone]


def write(first_line: bytes, headers: Headers) -> bytes:
    """A head, with the empty line that ends it."""
    lines = [first_line]
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join((*lines, b"", b""))


def write_request(method: bytes, target: bytes, headers: Headers) -> bytes:
    """The head of a request."""
    return write(b"%b %b HTTP/1.1" % (method, target), headers)


def write_response(status: int, reason: bytes, headers: Headers) -> bytes:
    """The head of a response."""
    return write(b"HTTP/1.1 %d %b" % (status, reason or REASONS.get(status, b"")), headers)


def error(status: int, message: str, kind: str, *, close: bool, extra: Headers | None = None) -> bytes:
    """A whole response in the shape of OpenAI's errors, so that every client library can read it."""
    body = msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": status}})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *(extra or [])]
    if close:
        headers.append((b"connection", b"close"))
    return write_response(status, b"", headers) + body
