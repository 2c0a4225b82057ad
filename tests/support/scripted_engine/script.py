"""What one answer shall look like and when: the script that comes with a request.

All delays are seconds. `*_after` count from the moment the request was complete; no part precedes the one before.
"""

from typing import Literal

import msgspec

Place = Literal["accept", "headers", "prefill", "decode"]


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer; the defaults are a short, immediate, well-formed one."""

    # when
    headers_after: float = 0.0
    role_after: float | None = None
    """None: the role chunk comes in one write with the first token, as vLLM's does."""
    first_after: float = 0.0
    gap: float = 0.0
    """Between token-bearing writes."""
    read_after: float = 0.0
    """Stop reading the request body for so long, once its head is here."""
    log_tokens: bool = True
    """Keep the moment of every token write, not only of the first and last."""

    # what
    tokens: int = 8
    tokens_per_event: int = 1
    events_per_write: int = 1
    prompt_tokens: int = 11
    cached_tokens: int | None = None
    choices: int = 1
    reasoning: int = 0
    """So many of the tokens, the first ones, are reasoning."""
    reasoning_field: Literal["reasoning", "reasoning_content"] = "reasoning"
    tool_calls: bool = False
    """All tokens are a tool call's arguments; there is no content."""
    text: str | None = None
    """The text of every token instead of `t0 `, `t1 `, ..."""
    body_bytes: int = 0
    """Pad a JSON answer, or every streamed event, to at least so many bytes."""
    finish_reason: str | None = "stop"
    finish_on_last: bool = False
    """The finish reason sits on the last token's chunk, not on an empty one after it."""
    usage: Literal["final", "finish_chunk", "every", "none", "always"] = "final"
    """final: an empty-choices chunk if `include_usage` was asked; always: unasked too; every: running, in all."""
    extra: dict[str, object] = {}
    """Keys for the usage chunk (or the finish chunk, or the JSON answer): `metrics`, `timings`, `nvext`."""
    done: bool = True
    after_done: str = ""
    """Bytes after [DONE], such as a trailing event."""

    # how
    line_end: Literal["\n", "\r\n", "\r"] = "\n"
    comments: bool = False
    """Pings before the first event and after every token."""
    framing: Literal["chunked", "close"] = "chunked"
    cut: int = 0
    """Write the stream's bytes in pieces of so many bytes, `gap` apart, instead of event by event."""
    headers: dict[str, str] = {}
    content_type: str | None = None
    raw: str | None = None
    """The answer's body verbatim, on any route."""

    # what goes wrong
    status: int = 200
    error_after: int | None = None
    """After so many tokens comes an error event with status 200, then the end."""
    reset_at: Place | None = None
    """Cut the connection: on the request head, instead of the headers, of the first token, or half-way through."""
    cut_by: Literal["rst", "fin"] = "rst"
    hang: bool | Literal["headers", "prefill", "decode"] = False
    """Fall silent at that place and stay so; true means headers."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a fake engine reads in a request body."""

    model: str = "scripted"
    stream: bool = False
    stream_options: dict[str, object] | None = None
    script: Script | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the final usage chunk was asked for."""
        return bool(self.stream_options and self.stream_options.get("include_usage"))


def read_ask(body: bytes) -> Ask:
    """The request body as far as it matters here; a body that is not JSON asks for nothing."""
    try:
        return msgspec.json.decode(body, type=Ask)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return Ask()


def read_script(header: str | None, ask: Ask, default: Script) -> Script:
    """The script for this answer: header before body before default."""
    if header is not None:
        return msgspec.json.decode(header, type=Script)
    return ask.script or default
