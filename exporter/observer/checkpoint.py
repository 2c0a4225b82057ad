"""The observer's memory that outlives it: bytes written so that a kill at any instant leaves one whole version.

1. Two headers of fixed place take turns; each tells generation, place, length and checksum of its version, and has a
   checksum of its own.
2. A new version is written where the newest whole one is not, then its header over the older header. Until that header
   is complete the version before it is the newest.
3. The file grows as needed; it is memory (a memfd) that belongs to the supervisor.
"""

import os
import struct
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

_MAGIC = b"IXC1"
_HEADER = struct.Struct(">4sQQQI")  # magic, generation, offset, length, checksum of the version
_CHECK = struct.Struct(">I")
_SLOT = 64
_DATA = 2 * _SLOT


class File(Protocol):
    """Bytes at offsets."""

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``."""
        ...

    def write(self, data: bytes, offset: int) -> None:
        """Write all of ``data`` at ``offset``, growing the file."""
        ...


class FdFile:
    """A file by its descriptor."""

    def __init__(self, fd: int) -> None:
        """The descriptor stays its giver's to close."""
        self._fd = fd

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``."""
        found = bytearray()
        while len(found) < size:
            part = os.pread(self._fd, size - len(found), offset + len(found))
            if not part:
                break
            found += part
        return bytes(found)

    def write(self, data: bytes, offset: int) -> None:
        """Write all of ``data`` at ``offset``, growing the file."""
        if os.fstat(self._fd).st_size < offset + len(data):
            os.ftruncate(self._fd, offset + len(data))
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written


@dataclass(frozen=True, slots=True)
class _Version:
    slot: int
    generation: int
    offset: int
    length: int
    checksum: int

    @property
    def end(self) -> int:
        return self.offset + self.length


_NOTHING = _Version(slot=1, generation=0, offset=_DATA, length=0, checksum=crc32(b""))


class Checkpoint:
    """The newest whole version of some bytes in a file."""

    def __init__(self, file: File) -> None:
        """Find the newest whole version in ``file``, which may be empty."""
        self._file = file
        self._newest = _NOTHING
        self._found: bytes | None = None
        for slot in (0, 1):
            self._look(slot)

    def take(self) -> bytes | None:
        """What was found at the start, once; ``None`` if there was no whole version."""
        found, self._found = self._found, None
        return found

    def write(self, data: bytes) -> None:
        """Make ``data`` the newest version."""
        newest = self._newest
        fits_before = _DATA + len(data) <= newest.offset
        offset = _DATA if fits_before else newest.end
        version = _Version(1 - newest.slot, newest.generation + 1, offset, len(data), crc32(data))
        self._file.write(data, offset)
        self._file.write(_header(version), version.slot * _SLOT)
        self._newest = version

    def _look(self, slot: int) -> None:
        version = _parse(slot, self._file.read(_HEADER.size + _CHECK.size, slot * _SLOT))
        if version is None or version.generation <= self._newest.generation:
            return
        data = self._file.read(version.length, version.offset)
        if len(data) == version.length and crc32(data) == version.checksum:
            self._newest, self._found = version, data


def _header(version: _Version) -> bytes:
    packed = _HEADER.pack(_MAGIC, version.generation, version.offset, version.length, version.checksum)
    return packed + _CHECK.pack(crc32(packed))


def _parse(slot: int, raw: bytes) -> _Version | None:
    packed, check = raw[: _HEADER.size], raw[_HEADER.size :]
    if len(check) != _CHECK.size or _CHECK.unpack(check)[0] != crc32(packed):
        return None
    magic, generation, offset, length, checksum = _HEADER.unpack(packed)
    return _Version(slot, generation, offset, length, checksum) if magic == _MAGIC else None
