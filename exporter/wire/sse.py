"""Server-sent events cut out of a byte stream, wherever it was split.

1. A line ends with LF, CR or CRLF; an event ends with an empty line. All three may be mixed in one stream.
2. Blocks are the raw bytes of events: joined, they are the stream, so that what is not taken out is untouched.
3. A block may begin with the LF of a CRLF whose CR ended the one before: the event was complete without it.
"""

import re

_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"

Event = tuple[str, bytes]
"""The name ("" for an unnamed event) and the data of an event."""


class Splitter:
    """Cuts a stream into blocks, one for each event, and holds what is not complete yet."""

    __slots__ = ("_held", "_limit")

    def __init__(self, limit: int) -> None:
        """Hold at most ``limit`` bytes of one event."""
        self._held = b""
        self._limit = limit

    @property
    def held(self) -> bytes:
        """The bytes of an event that is not complete yet."""
        return self._held

    @property
    def over(self) -> bool:
        """Whether one event is larger than may be held."""
        return len(self._held) > self._limit

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return the blocks that are now complete."""
        if not self._held and data.endswith(b"\n\n") and data.count(b"\n\n") == 1 and b"\r" not in data:
            return [data]  # one whole event, as nearly every read is
        scanned = max(0, len(self._held) - 3)
        held = self._held + data
        blocks, start = [], 0
        while match := _END.search(held, max(start, scanned)):
            blocks.append(held[start : match.end()])
            start = match.end()
        self._held = held[start:]
        return blocks


def parse(block: bytes) -> Event | None:
    """The event in a block; ``None`` for comments and other blocks without data.

    A field named ``error`` (old llama.cpp builds write ``error: {...}`` as a line of its own) is an event of that name.
    """
    if block.startswith(b"data: ") and block.count(b"\n") == 2 and b"\r" not in block:  # noqa: PLR2004 - its end
        return "", block[6:-2]
    name, data = "", []
    for line in _LINE.split(block.removeprefix(_BOM)):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"error":
            name = "error"
            data.append(value)
    return (name, b"\n".join(data)) if data else None
