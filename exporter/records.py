"""What relays tell the observer, and how it lies on the channel between them.

1. A frame is its length (4 bytes, big endian) and one message in MessagePack.
2. A session begins with the relay's Hello; the observer answers with an Ack of the last number it has folded from that
   relay (0 for none). The relay drops what is acknowledged, sends the rest again, then CaughtUp.
3. Pulse and Ended carry rising numbers, one series for both. The observer acknowledges a number when its totals with
   it are in the checkpoint, so that whichever side dies, each is folded exactly once.
4. Moments in messages are the relay's monotonic seconds; Hello's anchor turns them into wall-clock time.
"""

import struct

import msgspec

from exporter.core.tally import Cells, Labels, Series, Tally
from exporter.core.timeline import Identity, Timeline

MAX_FRAME = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Who speaks: ``relay`` is its slot (0 to workers - 1), ``boot`` tells its incarnations apart.

    Wall-clock time in seconds of a moment = ``wall`` + moment - ``monotonic``.
    """

    relay: int
    boot: str
    pid: int
    wall: float
    monotonic: float


class Opened(msgspec.Struct, frozen=True, array_like=True):
    """A live request, told once if it lives long enough, so that it can be ended should its relay die."""

    identity: Identity
    arrival: float


class Live(msgspec.Struct, frozen=True, array_like=True):
    """The live requests of one set of base labels: by phase, how many and the arrival of the oldest."""

    labels: Labels
    phases: dict[str, tuple[int, float]]
    last_token: float | None


class Pulse(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What happened since the last pulse, about 4 times a second while there is anything to tell.

    ``counters`` and ``histograms`` are a Tally: ITL, TTFT of running streams, output tokens so far, degraded records.
    ``closed`` are span ids of opened requests that ended without an Ended message of their own (degraded to counts).
    """

    number: int
    at: float
    live: list[Live]
    opened: list[Opened]
    closed: list[str]
    counters: list[tuple[str, Labels, float]]
    histograms: list[tuple[str, Labels, dict[int, int], float]]


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One ended request."""

    number: int
    timeline: Timeline


class CaughtUp(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Everything that was not acknowledged has been sent again."""


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """All numbers up to this one are folded and in the checkpoint."""

    number: int


FromRelay = Hello | Pulse | Ended | CaughtUp
Message = FromRelay | Ack

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def frame(message: Message) -> bytes:
    """One message as it lies on the channel."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts received bytes back into messages, wherever they were split."""

    def __init__(self) -> None:
        """Start at the beginning of a session."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes and return the messages that are complete; ValueError says what is not a message."""
        self._buffer += data
        found: list[Message] = []
        start, end = 0, len(self._buffer)
        while end - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_FRAME:
                raise ValueError(f"frame of {length} bytes, at most {MAX_FRAME} are accepted")
            if end - start < _LENGTH.size + length:
                break
            start += _LENGTH.size
            found.append(_decode(memoryview(self._buffer)[start : start + length]))
            start += length
        del self._buffer[:start]
        return found


def _decode(body: memoryview) -> Message:
    try:
        return _decoder.decode(body)
    except (ValueError, RecursionError) as error:  # msgspec's own, text that is not UTF-8, endless nesting
        raise ValueError(f"frame of {len(body)} bytes is not a message: {error}") from error
    finally:
        body.release()


def tally_rows(
    tally: Tally,
) -> tuple[list[tuple[str, Labels, float]], list[tuple[str, Labels, dict[int, int], float]]]:
    """A tally as the two lists of a Pulse."""
    counters = [(name, labels, amount) for (name, labels), amount in tally.counters.items()]
    histograms = [(name, labels, cells.counts, cells.sum) for (name, labels), cells in tally.histograms.items()]
    return counters, histograms


def pulse_tally(pulse: Pulse) -> Tally:
    """The tally that a Pulse carries."""
    counters: dict[Series, float] = {(name, labels): amount for name, labels, amount in pulse.counters}
    histograms = {(name, labels): Cells(counts, total) for name, labels, counts, total in pulse.histograms}
    return Tally(counters, histograms)
