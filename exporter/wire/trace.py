"""W3C trace context: the ``traceparent`` header read and written."""

import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Parent:
    """The caller's span: ids in lower-case hexadecimal digits."""

    trace_id: str
    span_id: str
    sampled: bool


def read(header: bytes | None) -> Parent | None:
    """The caller's context; ``None`` where there is none or it is not valid, as the specification asks."""
    match = _TRACEPARENT.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest) or set(trace_id) == {48} or set(span_id) == {48}:
        return None
    return Parent(trace_id.decode(), span_id.decode(), sampled=bool(int(flags, 16) & 1))


def write(trace_id: str, span_id: str, *, sampled: bool) -> bytes:
    """The header that makes our span the parent of the engine's."""
    return b"00-%b-%b-%b" % (trace_id.encode(), span_id.encode(), b"01" if sampled else b"00")
