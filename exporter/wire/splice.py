"""Puts ``stream_options.include_usage`` into a JSON body as bytes; nothing else of the body is touched.

1. An object that the client sent itself is left alone, whatever is in it: without ``include_usage`` it means yes to
   some engines (TensorRT-LLM, vLLM before 2026) and no to others, and asking can turn on more than the last chunk
   (``continuous_usage_stats``), which could not be taken out again.
2. A place is guessed and then judged by the decoder, because that is a hundred times as fast as to walk the body here.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

_NAME = b'"stream_options"'
_NULL = re.compile(_NAME + rb"\s*:\s*(?=null)")
_ASKED = b'{"include_usage":true}'
_TRIES = 8


class _Body(msgspec.Struct, gc=False):
    stream_options: Any = None


_decoder = msgspec.json.Decoder(_Body)


def include_usage(body: bytes, options: object) -> bytes | None:
    """The body with usage asked for; ``None`` where the client said something about it, or said nothing too strangely.

    ``options`` is the decoded value of the body's ``stream_options``, ``None`` where absent or null. The body is a JSON
    object that has at least one member.
    """
    if options is not None:
        return None
    return next((spliced for spliced in _guesses(body) if _asks(spliced)), None)


def _guesses(body: bytes) -> Iterator[bytes]:
    """In the place of a null, the last first, since of several that one counts; then as a new member."""
    at = len(body)
    for _ in range(_TRIES):
        at = body.rfind(_NAME, 0, at)
        if at < 0:
            break
        if name := _NULL.match(body, at):
            yield b"".join((body[: name.end()], _ASKED, body[name.end() + len(b"null") :]))
    start = body.index(b"{") + 1
    yield b"".join((body[:start], _NAME, b":", _ASKED, b",", body[start:]))


def _asks(body: bytes) -> bool:
    options = _decoder.decode(body).stream_options
    return isinstance(options, dict) and options == {"include_usage": True}
