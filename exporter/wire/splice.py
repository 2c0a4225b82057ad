"""Puts ``stream_options.include_usage`` into a JSON body as bytes; nothing else of the body is touched.

An object that the client sent itself is left alone, whatever is in it: without ``include_usage`` it means yes to some
engines (TensorRT-LLM, vLLM before 2026) and no to others, and asking can turn on more than the last chunk
(``continuous_usage_stats``), which could not be taken out again.
"""

import re

import msgspec

_NAME = b'"stream_options"'
_ASKED = b'{"include_usage":true}'
_MEMBER = _NAME + b":" + _ASKED + b","
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]', re.DOTALL)
_ESCAPED_LETTER = re.compile(rb"\\u00(?:5[fF]|[67])")


def include_usage(body: bytes, options: object) -> bytes | None:
    """The body with usage asked for; ``None`` where the client said something about it.

    ``options`` is the decoded value of the body's ``stream_options``, ``None`` where absent or null. The body is a JSON
    object that has at least one member.
    """
    if options is not None:
        return None
    null = _null(body) if _NAME in body or _ESCAPED_LETTER.search(body) else None
    if null is None:
        start = body.index(b"{") + 1
        return body[:start] + _MEMBER + body[start:]
    return body[:null] + _ASKED + body[null + len(b"null") :]


def _null(body: bytes) -> int | None:
    """Where the null of a top-level ``stream_options`` begins; of several the last, which is the one that counts."""
    depth, before, found = 0, b"", None
    for token in _TOKEN.finditer(body):
        text = token.group()
        if text in b"{[":
            depth += 1
        elif text in b"}]":
            depth -= 1
        elif text == b":" and depth == 1 and _is_name(before):
            found = body.index(b"null", token.end())
        before = text
    return found


def _is_name(key: bytes) -> bool:
    return key == _NAME or (b"\\" in key and msgspec.json.decode(key) == "stream_options")
