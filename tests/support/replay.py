"""Plays answers through an Exchange as the relay does: each read is forwarded first and understood afterwards."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from msgspec.structs import fields

from exporter.core.timeline import Timeline
from exporter.engines import GENERIC, Engine
from exporter.exchange import Exchange, Settings
from support.recordings import Headers, Recording

Reads = Sequence[tuple[float, bytes]]
"""What each read of an answer's body brought, and when, in seconds after the request arrived."""

STREAM: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON: Headers = [(b"content-type", b"application/json")]

_MOMENTS = ("arrival", "end", "first_token", "first_answer", "last_token", "queueing", "prefill", "tpots", "stalled")


@dataclass(frozen=True)
class Played:
    """How an exchange went: what was sent to the engine, what the client got, and what was learned."""

    exchange: Exchange
    request: bytes
    forwarded: bytes
    timeline: Timeline
    gaps: list[float]


def exchange(
    gaps: list[float] | None = None,
    *,
    operation: str = "chat",
    headers: Headers | None = None,
    engine: Engine = GENERIC,
    inspect_limit: int = 16 * 1024 * 1024,
    traces: bool = True,
) -> Exchange:
    """An exchange whose ids are always the same."""
    found = [] if gaps is None else gaps
    settings = Settings(
        engine=engine,
        inspect_limit=inspect_limit,
        sample=lambda _, caller: caller is not False,
        trace_id=lambda: 0x0AF7651916CD43DD8448EB211C80319C,
        span_id=lambda: 0xB7AD6B7169203331,
        gaps=lambda _: found,
        traces=traces,
    )
    return Exchange(settings, operation, headers or [])


def asking(**members: object) -> bytes:
    """The body of a streamed chat request; a member that is ``...`` is left out."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}], **members}
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


def play(
    reads: Reads,
    request: bytes | None = None,
    *,
    status: int = 200,
    headers: Headers = STREAM,
    operation: str = "chat",
    inspect_limit: int = 16 * 1024 * 1024,
) -> Played:
    """An answer that came in ``reads`` and ended with the last one; the request arrived at 0 and left at once."""
    gaps: list[float] = []
    followed = exchange(gaps, operation=operation, inspect_limit=inspect_limit)
    sent = followed.request(0.0, asking() if request is None else request)
    followed.recorder.dispatched(0.0)
    forwarded = give(followed, reads, status, headers)
    forwarded += followed.rest()
    timeline = followed.end(reads[-1][0] if reads else 0.0)
    assert timeline is not None
    return Played(followed, sent, forwarded, timeline, gaps)


def give(followed: Exchange, reads: Reads, status: int = 200, headers: Headers = STREAM) -> bytes:
    """The head and these reads of an answer, without its end; returns what the client got."""
    followed.response(status, headers)
    forwarded = []
    for at, data in reads:
        forwarded.append(followed.forward(data))
        followed.observe(at, data)
    return b"".join(forwarded)


def replay(recording: Recording, reads: Reads | None = None) -> Played:
    """A recording, in the reads in which it came or in others."""
    return play(
        reads_of(recording) if reads is None else reads,
        recording.request,
        status=recording.status,
        headers=recording.headers,
        operation="chat" if recording.path.endswith(b"/chat/completions") else "text_completion",
    )


def reads_of(recording: Recording) -> list[tuple[float, bytes]]:
    """The reads in which a recording came."""
    return [(piece.after, piece.body) for piece in recording.pieces]


def cut(body: bytes, places: Iterable[int], step: float = 0.0) -> list[tuple[float, bytes]]:
    """A body in pieces: it is cut at ``places``, and each piece comes ``step`` seconds after the last."""
    edges = sorted({0, len(body), *(place for place in places if place < len(body))})
    pieces = [body[start:end] for start, end in pairwise(edges)]
    return [(1.0 + step * number, piece) for number, piece in enumerate(pieces)]


def bytewise(body: bytes) -> list[tuple[float, bytes]]:
    """A body byte by byte."""
    return cut(body, range(len(body)))


def timeless(timeline: Timeline) -> dict[str, object]:
    """What does not depend on the moments: which of them are known, but not when they were."""
    told: dict[str, object] = {field.name: getattr(timeline, field.name) for field in fields(timeline)}
    for name in _MOMENTS:
        value = told.pop(name)
        told[f"{name} known"] = len(value) if isinstance(value, tuple) else value is not None
    return told


def chunk(*choices: dict[str, object], **members: object) -> dict[str, object]:
    """A chunk of a chat; a choice is ``content("Hi")``, ``finish()`` or any other object."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": "m"}
    return {**head, "choices": list(choices), **members}


def delta(index: int = 0, /, **members: object) -> dict[str, object]:
    """A choice that adds to its message."""
    return {"index": index, "delta": members, "finish_reason": None}


def content(text: str, index: int = 0) -> dict[str, object]:
    """A choice with a piece of text."""
    return delta(index, content=text)


def role(index: int = 0) -> dict[str, object]:
    """A choice that only says who speaks."""
    return delta(index, role="assistant", content="")


def finish(reason: str = "stop", index: int = 0) -> dict[str, object]:
    """A choice that ends."""
    return {"index": index, "delta": {}, "finish_reason": reason}


def counts(output: int, prompt: int = 11, **members: object) -> dict[str, object]:
    """A usage object."""
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, **members}


def usage(output: int, prompt: int = 11) -> dict[str, object]:
    """The chunk that include_usage adds."""
    return chunk(usage=counts(output, prompt))


def event(data: dict[str, object] | str, line_end: str = "\n", head: str = "data: ") -> bytes:
    """One event: an object as JSON, or a text such as [DONE]."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return f"{head}{text}{line_end}{line_end}".encode()


DONE = event("[DONE]")


def stream(*events: dict[str, object] | bytes) -> list[tuple[float, bytes]]:
    """One read for each event, one second apart, the first at 1."""
    return [(1.0 + at, one if isinstance(one, bytes) else event(one)) for at, one in enumerate(events)]
