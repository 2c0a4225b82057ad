"""Server-sent events cut out of a byte stream, wherever it was split.

1. A line ends with LF, CR or CRLF; an event ends with an empty line. All three may be mixed in one stream.
2. Blocks are the raw bytes of events: joined, they are the stream, so that what is not taken out is untouched.
3. An event that ends with CR is complete without the LF that may follow. Where that LF comes with a later read, it is
   a block of its own.
"""

import re

_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE = re.compile(rb"\r\n|\n|\r")
_LONGEST_END = len(b"\r\n\r\n")
_BOM = b"\xef\xbb\xbf"

Event = tuple[str, bytes]
"""The name ("" for an unnamed event) and the data of an event."""


class Splitter:
    """Cuts a stream into blocks, one for each event, and holds what is not complete yet."""

    __slots__ = ("_after_cr", "_held", "_limit")

    def __init__(self, limit: int) -> None:
        """Hold at most ``limit`` bytes of one event."""
        self._held = bytearray()
        self._limit = limit
        self._after_cr = False  # the last block ended with CR and nothing came since

    @property
    def held(self) -> bytes:
        """The bytes of an event that is not complete yet."""
        return bytes(self._held)

    @property
    def midway(self) -> bool:
        """Whether the stream stands within an event, or a CRLF."""
        return bool(self._held) or self._after_cr

    @property
    def over(self) -> bool:
        """Whether one event is larger than may be held."""
        return len(self._held) > self._limit

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return the blocks that are now complete."""
        if self.midway:
            return self._resume(data)
        if b"\r" not in data:
            if data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2:
                return [data]  # one whole event, as nearly every read is
            return self._split(data, b"\n\n")
        if data.count(b"\r\n") == data.count(b"\r") == data.count(b"\n"):
            return self._split(data, b"\r\n\r\n")
        return self._search(data)

    def _split(self, data: bytes, end: bytes) -> list[bytes]:
        """Cut a read in which every line ends alike."""
        *blocks, rest = data.split(end)
        self._held += rest
        return [block + end for block in blocks]

    def _resume(self, data: bytes) -> list[bytes]:
        """Go on in the middle of an event, or of a CRLF."""
        if not data:
            return []
        if not self._after_cr:
            return self._search(data)
        self._after_cr = False
        return [b"\n", *self.feed(data[1:])] if data.startswith(b"\n") else self.feed(data)

    def _search(self, data: bytes) -> list[bytes]:
        """Cut at any mixture of line ends."""
        held = self._held
        scanned = max(0, len(held) - _LONGEST_END + 1)
        held += data
        blocks, start = [], 0
        while match := _END.search(held, max(start, scanned)):
            blocks.append(bytes(held[start : match.end()]))
            start = match.end()
        del held[:start]
        self._after_cr = not held and blocks[-1].endswith(b"\r")
        return blocks


def parse(block: bytes) -> Event | None:
    """The event in a block; ``None`` for comments and other blocks without data.

    A field named ``error`` (old llama.cpp builds write ``error: {...}`` as a line of its own) is an event of that name.
    A block that is no event at all but a bare JSON object, as some servers write their errors into an event stream, is
    taken for the data of one.
    """
    if block.startswith(b"data: "):
        lines = block.count(b"\n")
        if lines == 2 and block.endswith(b"\n\n") and b"\r" not in block:  # noqa: PLR2004 - both are its end
            return "", block[6:-2]
        if lines == 2 and block.endswith(b"\r\n\r\n") and block.count(b"\r") == 2:  # noqa: PLR2004 - the same
            return "", block[6:-4]
    return _parse_lines(block.removeprefix(_BOM))


def _parse_lines(block: bytes) -> Event | None:
    name, data = "", []
    for line in _LINE.split(block):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"error":
            name = "error"
            data.append(value)
    if data:
        return name, b"\n".join(data)
    bare = block.strip()
    return ("", bare) if bare.startswith(b"{") else None
