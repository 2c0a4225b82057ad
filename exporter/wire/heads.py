"""HTTP/1.1 heads: what a proxy must not pass on, and how a head is written.

Header names are lower case from the parser on, and passed on so, as HTTP/2 and most proxies do.
"""

import msgspec

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"te", b"trailer",
     b"transfer-encoding", b"upgrade")
)  # fmt: skip

_NEVER_LISTED = frozenset((b"content-length", b"host"))
_PLAIN = (b"keep-alive", b"close", b"Keep-Alive", b"Close")

REASONS = {
    200: b"OK", 204: b"No Content", 400: b"Bad Request", 404: b"Not Found", 408: b"Request Timeout",
    413: b"Content Too Large", 417: b"Expectation Failed", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip


def value(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header."""
    for key, found in headers:
        if key == name:
            return found
    return None


def first(headers: Headers) -> dict[bytes, bytes]:
    """The first value of each header, where several are looked for."""
    return dict(reversed(headers))


def end_to_end(headers: Headers, drop: frozenset[bytes] = HOP_BY_HOP) -> Headers:
    """The headers that may be passed on: none of ``drop``, and none that Connection lists.

    Connection cannot take away what frames or addresses a message: a peer that lists such a header would change where
    the next one begins.
    """
    listed = [found for key, found in headers if key == b"connection" and found not in _PLAIN]
    if listed:
        tokens = {token.strip() for token in b",".join(listed).lower().split(b",")}
        drop = drop | (tokens - _NEVER_LISTED)
    return [header for header in headers if header[0] not in drop]


def write(first_line: bytes, headers: Headers) -> bytes:
    """A head, with the empty line that ends it."""
    return b"\r\n".join((first_line, *map(b": ".join, headers), b"\r\n"))


def write_request(method: bytes, target: bytes, headers: Headers) -> bytes:
    """The head of a request."""
    return write(b"%b %b HTTP/1.1" % (method, target), headers)


def write_response(status: int, reason: bytes, headers: Headers) -> bytes:
    """The head of a response."""
    return write(b"HTTP/1.1 %d %b" % (status, reason or REASONS.get(status, b"")), headers)


def refusal(status: int) -> str:
    """The type of an error with which a request is refused, as OpenAI names it."""
    return "server_error" if status == 500 else "invalid_request_error"  # noqa: PLR2004 - the one that is our fault


def error(  # noqa: PLR0913 - what an error consists of
    status: int, message: str, kind: str, *, close: bool, extra: Headers | None = None, body: bool = True
) -> bytes:
    """A whole response in the shape of OpenAI's errors, so that every client library can read it.

    ``body=False`` is for HEAD, whose answers are heads alone.
    """
    content = msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": status}})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content)), *(extra or [])]
    if close:
        headers.append((b"connection", b"close"))
    return write_response(status, b"", headers) + (content if body else b"")
