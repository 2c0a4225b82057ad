"""Script and request -> the answer's bytes with their moments; pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import msgspec

from support.scripted_engine.script import Ask, Script

Json: TypeAlias = dict[str, object]
encode = msgspec.json.encode

CREATED = 1790000000
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}


class Mark(Enum):
    """What a write means to whoever reads the log."""

    HEADERS = "headers"
    ROLE = "role"
    TOKEN = "token"
    OTHER = "other"
    END = "end"
    RESET = "reset"
    HANG = "hang"


class Step(msgspec.Struct, frozen=True):
    """One write: so many seconds after the request was complete, these bytes."""

    after: float
    data: bytes
    mark: Mark


@dataclass(frozen=True, slots=True)
class Shape:
    """The route's own spelling of an answer."""

    chat: bool
    model: str
    request_id: str

    def envelope(self, *, streamed: bool) -> Json:
        """The keys before `choices`."""
        kind = "chat.completion" + (".chunk" if streamed else "") if self.chat else "text_completion"
        prefix = "chatcmpl-" if self.chat else "cmpl-"
        return {"id": prefix + self.request_id, "object": kind, "created": CREATED, "model": self.model}


def answer(script: Script, ask: Ask, shape: Shape) -> Iterator[Step]:
    """Every write of this answer, in order."""
    steps = _whole(script, ask, shape)
    place = "headers" if script.hang is True else script.hang
    if script.reset_at:
        steps = _interrupt(steps, script, script.reset_at, Mark.RESET)
    elif place:
        steps = _interrupt(steps, script, place, Mark.HANG)
    return steps


def _interrupt(steps: Iterator[Step], script: Script, place: str, mark: Mark) -> Iterator[Step]:
    tokens = 0
    half = max(1, script.tokens // script.tokens_per_event // 2)
    for step in steps:
        at_headers = place in {"headers", "accept"} and step.mark is Mark.HEADERS
        if step.mark is Mark.TOKEN:
            tokens += 1
        at_token = (place == "prefill" and tokens == 1) or (place == "decode" and tokens > half)
        if at_headers or at_token or step.mark is Mark.END:
            yield Step(step.after, b"", mark)
            return
        yield step


def _whole(script: Script, ask: Ask, shape: Shape) -> Iterator[Step]:
    if script.status != 200:
        return _json(script, encode(_error(script.status)))
    if ask.stream:
        return _framed(script, _raw(script) if script.raw is not None else _events(script, ask, shape))
    if script.raw is not None:
        return _json(script, script.raw.encode())
    return _json(script, _completion(script, shape))


def head(status: int, headers: dict[str, str]) -> bytes:
    """A response head."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Scripted')}", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _json(script: Script, body: bytes) -> Iterator[Step]:
    kind = script.content_type or "application/json"
    headers = {"content-type": kind, "content-length": str(len(body)), **script.headers}
    after = max(script.headers_after, script.first_after)
    yield Step(after, head(script.status, headers) + body, Mark.HEADERS)
    yield Step(after, b"", Mark.END)


def _framed(script: Script, events: Iterator[Step]) -> Iterator[Step]:
    chunked = script.framing == "chunked"
    kind = script.content_type or "text/event-stream; charset=utf-8"
    framing = {"transfer-encoding": "chunked"} if chunked else {"connection": "close"}
    yield Step(script.headers_after, head(200, {"content-type": kind, **framing, **script.headers}), Mark.HEADERS)
    after = script.headers_after
    for step in events:
        after = max(after, step.after)
        if not step.data:
            continue  # an empty HTTP chunk would end the body
        yield Step(after, b"%x\r\n%b\r\n" % (len(step.data), step.data) if chunked else step.data, step.mark)
    yield Step(after, b"0\r\n\r\n" if chunked else b"", Mark.END)


def _raw(script: Script) -> Iterator[Step]:
    body = (script.raw or "").encode()
    size = script.cut or len(body) or 1
    for turn, start in enumerate(range(0, len(body), size)):
        yield Step(script.first_after + turn * script.gap, body[start : start + size], Mark.TOKEN)


def _events(script: Script, ask: Ask, shape: Shape) -> Iterator[Step]:
    """The stream as writes; `cut` makes its bytes come in even pieces instead."""
    writes = _writes(script, _chunks(script, ask, shape))
    if not script.cut:
        return writes
    body = b"".join(step.data for step in writes)
    return _raw(msgspec.structs.replace(script, raw=body.decode()))


def _writes(script: Script, chunks: Iterator[tuple[Mark, bytes]]) -> Iterator[Step]:
    """Give every event its moment; the events of one write stay together."""
    held, turn, in_write, after = b"", 0, 0, script.first_after
    if script.comments:
        yield Step(script.headers_after, b": keep-alive" + 2 * script.line_end.encode(), Mark.OTHER)
    for mark, data in chunks:
        if mark is Mark.ROLE:
            if script.role_after is None:
                held += data
            else:
                yield Step(script.role_after, data, mark)
        elif mark is Mark.TOKEN:
            held, in_write = held + data, in_write + 1
            if in_write == script.events_per_write:
                after = script.first_after + turn * script.gap
                yield Step(after, held, mark)
                held, turn, in_write = b"", turn + 1, 0
        else:
            if held:
                after = script.first_after + turn * script.gap
                yield Step(after, held, Mark.TOKEN if in_write else Mark.ROLE)
                held, in_write = b"", 0
            yield Step(after, data, mark)


def _chunks(script: Script, ask: Ask, shape: Shape) -> Iterator[tuple[Mark, bytes]]:
    """Every event in order, with what it means."""
    envelope = shape.envelope(streamed=True)
    ping = b": keep-alive" + 2 * script.line_end.encode() if script.comments else b""

    def event(choices: list[Json], extra: Json | None = None) -> bytes:
        return _event(script, encode({**envelope, "choices": choices, **(extra or {})}))

    if shape.chat:
        for index in _indexes(script):
            role: Json = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield Mark.ROLE, event([role], _running(script, 0))
    made = 0
    for index, first, count in _token_events(script):
        if script.error_after is not None and made >= script.error_after:
            yield Mark.OTHER, _event(script, encode(_error(500))) + _done(script)
            return
        made += count
        last = script.finish_on_last and first + count >= script.tokens
        choice = _token_choice(script, shape, index, range(first, first + count), finished=last)
        yield Mark.TOKEN, event([choice], _running(script, made)) + ping
    if script.finish_reason is not None and not script.finish_on_last:
        closing = _usage_and_extra(script) if script.usage == "finish_chunk" else _running(script, made)
        for index in _indexes(script):
            yield Mark.OTHER, event([_finish_choice(script, shape, index)], closing)
    if script.usage == "always" or (ask.include_usage and script.usage in {"final", "every"}):
        yield Mark.OTHER, event([], _usage_and_extra(script))
    yield Mark.OTHER, _done(script)


def _indexes(script: Script) -> range:
    return range(script.choices)


def _token_events(script: Script) -> Iterator[tuple[int, int, int]]:
    """(choice, its first token, tokens in the event), choices in turn."""
    for first in range(0, script.tokens, script.tokens_per_event):
        for index in _indexes(script):
            yield index, first, min(script.tokens_per_event, script.tokens - first)


def _token_choice(script: Script, shape: Shape, index: int, tokens: range, *, finished: bool) -> Json:
    text = _text(script, tokens).ljust(script.body_bytes, ".")
    body: Json = {"delta": _delta(script, tokens.start, text)} if shape.chat else {"text": text}
    return {"index": index, **body, "logprobs": None, "finish_reason": _finish_reason(script) if finished else None}


def _text(script: Script, tokens: range) -> str:
    return "".join(f"t{i} " if script.text is None else script.text for i in tokens)


def _delta(script: Script, first: int, text: str) -> Json:
    if script.tool_calls:
        function: Json = {"arguments": text}
        call: Json = {"index": 0, "function": function}
        if first == 0:
            function["name"] = "look_up"
            call |= {"id": "call_1", "type": "function"}
        return {"tool_calls": [call]}
    return {script.reasoning_field if first < script.reasoning else "content": text}


def _finish_choice(script: Script, shape: Shape, index: int) -> Json:
    body: Json = {"delta": {}} if shape.chat else {"text": ""}
    return {"index": index, **body, "finish_reason": _finish_reason(script)}


def _finish_reason(script: Script) -> str | None:
    return "tool_calls" if script.tool_calls and script.finish_reason == "stop" else script.finish_reason


def usage(script: Script, made: int) -> Json:
    """The usage object after `made` output tokens."""
    counts: Json = {
        "prompt_tokens": script.prompt_tokens,
        "total_tokens": script.prompt_tokens + made,
        "completion_tokens": made,
    }
    if script.cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": script.cached_tokens}
    if script.reasoning:
        counts["completion_tokens_details"] = {"reasoning_tokens": min(made, script.reasoning * script.choices)}
    return counts


def _running(script: Script, made: int) -> Json:
    return {"usage": usage(script, made)} if script.usage == "every" else {}


def _usage_and_extra(script: Script) -> Json:
    return {"usage": usage(script, script.tokens * script.choices), **script.extra}


def _completion(script: Script, shape: Shape) -> bytes:
    text = _text(script, range(script.tokens)).ljust(script.body_bytes, ".")
    body: Json = {"message": {"role": "assistant", "content": text}} if shape.chat else {"text": text}
    finish = _finish_reason(script)
    choices: list[Json] = [{"index": i, **body, "finish_reason": finish} for i in _indexes(script)]
    closing = script.extra if script.usage == "none" else _usage_and_extra(script)
    return encode({**shape.envelope(streamed=False), "choices": choices, **closing})


def _error(status: int) -> Json:
    return {"error": {"message": "scripted error", "type": "ScriptedError", "param": None, "code": status}}


def _event(script: Script, data: bytes) -> bytes:
    return b"data: " + data + 2 * script.line_end.encode()


def _done(script: Script) -> bytes:
    return (_event(script, b"[DONE]") if script.done else b"") + script.after_done.encode()
