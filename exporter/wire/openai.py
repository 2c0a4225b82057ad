"""OpenAI chat completions and completions, as every engine bends them.

1. A token-bearing choice has non-empty content, text, reasoning, refusal, tool call, function call or audio. Role
   chunks, pings, progress and usage are none.
2. Usage may stand on a chunk of its own with no choices, on the chunk that finishes, on every chunk with running
   counts (vLLM's continuous usage), zeroed on every chunk (Ollama) or nowhere.
3. ``[DONE]`` may be absent, or followed by more.
4. What cannot be read is counted in ``misread`` and changes nothing else.
"""

from enum import Enum
from typing import Any

import msgspec

from exporter.core.recorder import Recorder
from exporter.core.timeline import Usage
from exporter.wire.sse import Event


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds to a message; any value is accepted, only emptiness matters."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    refusal: Any = None
    function_call: Any = None
    audio: Any = None


class Choice(msgspec.Struct, gc=False):
    """One choice of a chunk or of a whole answer."""

    index: int = 0
    delta: Delta | None = None
    text: Any = None
    finish_reason: Any = None


class Chunk(msgspec.Struct, gc=False):
    """A chunk, a whole answer or an error: the top-level keys that matter."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    model: Any = None
    id: Any = None


class Request(msgspec.Struct, gc=False):
    """The top-level keys of a request that matter; any type, since a wrong one is the engine's to refuse."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    n: Any = None
    prompt: Any = None


_chunk = msgspec.json.Decoder(Chunk)
_request = msgspec.json.Decoder(Request)


def read_request(body: bytes) -> Request | None:
    """The request in a body; ``None`` where it is not a JSON object."""
    try:
        return _request.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def choices_asked(request: Request) -> int:
    """How many answers a request asks for: ``n`` for each prompt of a batch."""
    count = request.n if isinstance(request.n, int) and request.n > 1 else 1
    prompt = request.prompt
    batched = isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)
    return count * len(prompt) if batched else count


class UsageChunk(Enum):
    """What a chunk with usage is, when it comes to taking out what only we asked for."""

    ONLY = "only"  # usage and no choices: what include_usage adds
    RUNNING = "running"  # a count so far, beside choices: the engine tells usage to everybody
    OTHER = "other"


def usage_chunk(data: bytes) -> UsageChunk:
    """Which kind of chunk an event is."""
    try:
        chunk = _chunk.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return UsageChunk.OTHER
    usage = _usage(chunk.usage)
    if usage is None or chunk.choices is None:
        return UsageChunk.OTHER
    if not chunk.choices:
        return UsageChunk.ONLY
    running = usage.output and not any(choice.finish_reason for choice in chunk.choices)
    return UsageChunk.RUNNING if running else UsageChunk.OTHER


class Reader:
    """Reads one answer into a Recorder, and keeps what it says about itself.

    ``finish`` has the finish reason of each choice, ``usage`` the engine's own counts where it told them at the end.
    """

    __slots__ = ("_running", "done", "error", "finish", "id", "misread", "model", "recorder", "usage")

    def __init__(self, recorder: Recorder) -> None:
        """Read into ``recorder``."""
        self.recorder = recorder
        self.model: str | None = None
        self.id: str | None = None
        self.usage: Usage | None = None
        self.finish: dict[int, str] = {}
        self.error = False
        self.done = False
        self.misread = 0
        self._running: dict[int, int] = {}

    def event(self, at: float, event: Event) -> None:
        """One server-sent event, read at ``at``."""
        name, data = event
        if name and name not in ("message", "error"):
            return  # a named event of an engine's own, such as sglext_ids
        if data == b"[DONE]" or data.strip() == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _chunk.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # transformers serve does not escape the text of its errors
            self._failed() if name == "error" or data.lstrip().startswith(b'{"error"') else self._misread()
            return
        if chunk.error is not None or name == "error":
            self._failed()
            return
        if self.model is None:
            self._introduce(chunk)
        if chunk.usage is not None:
            self._usage(chunk)
        if chunk.choices:
            self._choices(at, chunk)

    def body(self, data: bytes) -> None:
        """A whole answer that was not streamed."""
        try:
            answer = _chunk.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._misread()
            return
        self.error = answer.error is not None
        self._introduce(answer)
        self.usage = _usage(answer.usage)
        for choice in answer.choices or ():
            self._finished(choice)

    def _choices(self, at: float, chunk: Chunk) -> None:
        for choice in chunk.choices or ():
            delta = choice.delta
            if choice.text or (
                delta is not None
                and (delta.content or delta.tool_calls or delta.refusal or delta.function_call or delta.audio)
            ):
                self.recorder.token(at, choice.index, self._count(choice.index, chunk))
            elif delta is not None and (delta.reasoning_content or delta.reasoning):
                self.recorder.token(at, choice.index, self._count(choice.index, chunk), answer=False)
            if choice.finish_reason is not None:
                self._finished(choice)

    def _count(self, index: int, chunk: Chunk) -> int | None:
        """The tokens of one choice's event, from running usage; ``None`` where it does not tell."""
        if chunk.usage is None:
            return None
        usage = _usage(chunk.usage)
        if usage is None or not usage.output:
            return None
        before = self._running.get(index, 0)
        if usage.output < before or (not before and self.recorder.choices.get(index) is not None):
            return None  # it does not run: it went down, or began in the middle
        self._running[index] = usage.output
        return usage.output - before

    def _usage(self, chunk: Chunk) -> None:
        usage = _usage(chunk.usage)
        if usage is None:
            return
        finishing = not chunk.choices or any(choice.finish_reason for choice in chunk.choices)
        if finishing:
            self.usage = usage
        elif usage.output:
            self.usage = self.usage or Usage(usage.input, None, usage.cached_input)

    def _introduce(self, chunk: Chunk) -> None:
        self.model = chunk.model if isinstance(chunk.model, str) else None
        self.id = chunk.id if isinstance(chunk.id, str) else None

    def _finished(self, choice: Choice) -> None:
        if isinstance(choice.finish_reason, str) and choice.finish_reason:
            self.finish[choice.index] = choice.finish_reason

    def _failed(self) -> None:
        self.error = True

    def _misread(self) -> None:
        self.misread += 1


def _usage(raw: Any) -> Usage | None:
    if not isinstance(raw, dict):
        return None
    prompt = raw.get("prompt_tokens_details")
    completion = raw.get("completion_tokens_details")
    reasoning = _count_of(completion, "reasoning_tokens")
    return Usage(
        input=_count_of(raw, "prompt_tokens"),
        output=_count_of(raw, "completion_tokens"),
        cached_input=_count_of(prompt, "cached_tokens"),
        reasoning_output=_count_of(raw, "reasoning_tokens") if reasoning is None else reasoning,
    )


def _count_of(raw: Any, key: str) -> int | None:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if type(value) is int and value >= 0 else None
