"""Reads the recordings of real servers: requests, and answers in the pieces in which they came."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import httptools

DIRECTORY = Path(__file__).parent.parent / "recordings"

Headers = list[tuple[bytes, bytes]]

_REQUEST = re.compile(rb"##### REQUEST (\S+) (\S+)\n((?:[A-Za-z-]+: [^\n]*\n)*)([^\n]*)\n##### RESPONSE [^\n]*\n")
_SEGMENT = re.compile(rb"--- \+([0-9.]+)ms ([0-9]+)B\n")
_END = b"##### END\n"


@dataclass(frozen=True)
class Piece:
    """What one read brought of an answer's body, ``after`` seconds after the request was sent."""

    after: float
    body: bytes


@dataclass(frozen=True)
class Recording:
    """One exchange; ``name`` is its file's, with a number where the file holds several. Header names are lower case."""

    name: str
    method: bytes
    path: bytes
    request_headers: Headers
    request: bytes
    status: int
    headers: Headers
    pieces: tuple[Piece, ...]

    @property
    def body(self) -> bytes:
        """The whole body of the answer, without framing."""
        return b"".join(piece.body for piece in self.pieces)

    @property
    def streamed(self) -> bool:
        """Whether the answer is an event stream."""
        return any(name == b"content-type" and b"event-stream" in value for name, value in self.headers)


@cache
def recordings() -> tuple[Recording, ...]:
    """All exchanges of all files, in the order of their names."""
    return tuple(one for path in sorted(DIRECTORY.glob("*.txt")) for one in read(path))


def read(path: Path) -> list[Recording]:
    """The exchanges of one file."""
    found = list(_exchanges(path.read_bytes(), path.name))
    several = len(found) > 1
    return [
        _deframed(f"{path.stem}#{number}" if several else path.stem, request, segments)
        for number, (request, segments) in enumerate(found, 1)
    ]


def _exchanges(text: bytes, name: str) -> Iterator[tuple[re.Match[bytes], list[Piece]]]:
    at = 0
    while at < len(text):
        request = _REQUEST.match(text, at)
        if request is None:
            raise ValueError(f"{name}, byte {at}: a request was expected, found {text[at : at + 40]!r}")
        segments, at = _segments(text, request.end(), name)
        yield request, segments
        while text[at : at + 1] == b"\n":
            at += 1


def _segments(text: bytes, at: int, name: str) -> tuple[list[Piece], int]:
    """The raw segments from ``at``, and where the exchange ends."""
    segments = []
    while head := _SEGMENT.match(text, at):
        end = head.end() + int(head[2])
        if text[end : end + 1] != b"\n":
            raise ValueError(f"{name}, byte {at}: the segment does not end after {int(head[2])} bytes")
        segments.append(Piece(float(head[1]) / 1000, text[head.end() : end]))
        at = end + 1
    if not text.startswith(_END, at):
        raise ValueError(f"{name}, byte {at}: {_END!r} was expected, found {text[at : at + 40]!r}")
    return segments, at + len(_END)


class _Answer:
    """Takes what httptools finds."""

    def __init__(self) -> None:
        self.headers: Headers = []
        self.pieces: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)


def _deframed(name: str, request: re.Match[bytes], segments: list[Piece]) -> Recording:
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    pieces = []
    for segment in segments:
        parser.feed_data(segment.body)
        if answer.pieces:
            pieces.append(Piece(segment.after, b"".join(answer.pieces)))
            answer.pieces.clear()
    return Recording(
        name=name,
        method=request[1],
        path=urlsplit(request[2]).path,
        request_headers=[_header(line) for line in request[3].splitlines()],
        request=request[4],
        status=parser.get_status_code(),
        headers=answer.headers,
        pieces=tuple(pieces),
    )


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b": ")
    return name.lower(), value
