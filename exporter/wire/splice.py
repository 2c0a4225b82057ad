"""Puts ``stream_options.include_usage`` into a JSON body as bytes; nothing else of the body is touched."""

import re

_INSERT = b'"stream_options":{"include_usage":true},'
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]', re.DOTALL)


def include_usage(body: bytes, options: object) -> bytes | None:
    """The body with usage asked for; ``None`` where the client's own ``stream_options`` leave nothing to put in.

    ``options`` is the decoded value of the body's ``stream_options``, ``None`` where absent or null. The body is a JSON
    object that has at least one member.
    """
    start = body.find(b"{") + 1
    if options is None and b'"stream_options"' not in body:
        return body[:start] + _INSERT + body[start:]
    if options is not None and (not isinstance(options, dict) or "include_usage" in options):
        return None
    found = _top_level_value(body, b'"stream_options"')
    if found is None:
        # The name only stands deeper down, in a message for example.
        return body[:start] + _INSERT + body[start:] if options is None else None
    if body[found : found + 4] == b"null":
        return body[:found] + b'{"include_usage":true}' + body[found + 4 :]
    comma = b"," if options else b""
    return body[: found + 1] + b'"include_usage":true' + comma + body[found + 1 :]


def _top_level_value(body: bytes, name: bytes) -> int | None:
    """Where the value of a top-level member begins."""
    depth, key = 0, False
    for token in _TOKEN.finditer(body):
        text = token.group()
        if text in b"{[":
            depth += 1
        elif text in b"}]":
            depth -= 1
        elif text == b":" and depth == 1 and key:
            rest = body[token.end() :]
            return token.end() + len(rest) - len(rest.lstrip())
        key = depth == 1 and (text == name or (key and text == b":"))
    return None
