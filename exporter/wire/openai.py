"""OpenAI chat completions and completions, as every engine bends them.

1. A token-bearing choice has non-empty content, text, reasoning, refusal, tool call, function call or audio. Role
   chunks, pings, progress and usage are none.
2. Usage may stand on a chunk of its own with no choices, on the chunk that finishes, on every chunk with running
   counts (vLLM's continuous usage), zeroed on every chunk (Ollama) or nowhere.
3. ``[DONE]`` may be absent, or followed by more.
4. What cannot be read is counted in ``misread`` and changes nothing else.
5. Names that a client or an engine chose are cut to a bounded length.
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


NAME_LIMIT = 256
"""Characters of a name that are kept."""

_MOST_TOKENS = 2**40
"""No request has more tokens; a larger number is nonsense, and would not fit where counts go."""

_MOST_AT_ONCE = 10_000
"""No event holds more tokens; a running count that leaps by more does not tell what an event holds."""

_OURS = ("", "message", "error")
"""Names of events that are part of the protocol; others are an engine's own, such as sglext_ids."""

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_chunk = msgspec.json.Decoder(Chunk)
_request = msgspec.json.Decoder(Request)


def read_request(body: bytes) -> Request | None:
    """The request in a body; ``None`` where it is not a JSON object."""
    try:
        return _request.decode(body)
    except _UNREADABLE:
        return None


def name(value: object) -> str | None:
    """A name as it may travel: bounded, and without what is no text; ``None`` for what is no string."""
    if not isinstance(value, str):
        return None
    if len(value) <= NAME_LIMIT and value.isascii():
        return value
    return value[:NAME_LIMIT].encode("utf-8", "replace").decode()


def choices_asked(request: Request) -> int:
    """How many answers a request asks for: ``n`` for each prompt of a batch."""
    count = request.n if isinstance(request.n, int) and request.n > 1 else 1
    prompt = request.prompt
    batched = isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)
    return count * len(prompt) if batched else count


class UsageChunk(Enum):
    """What a chunk with usage is, when it comes to taking out what only we asked for."""

    ONLY = "only"  # usage and no choices: what include_usage adds
    BESIDE = "beside"  # counts beside choices: the engine tells usage to everybody
    OTHER = "other"


def usage_chunk(event: Event | None) -> UsageChunk:
    """Which kind of chunk an event is."""
    if event is None or event[0] not in _OURS:
        return UsageChunk.OTHER
    try:
        chunk = _chunk.decode(event[1])
    except _UNREADABLE:
        return UsageChunk.OTHER
    usage = _usage(chunk.usage)
    if usage is None or chunk.choices is None:
        return UsageChunk.OTHER
    if not chunk.choices:
        return UsageChunk.ONLY
    return UsageChunk.BESIDE if usage.input or usage.output else UsageChunk.OTHER


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
        kind, data = event
        if kind == "error":
            self.error = True
        elif kind in _OURS:
            self.chunk(at, data)

    def chunk(self, at: float, data: bytes) -> None:
        """The data of one event, read at ``at``."""
        try:
            chunk = _chunk.decode(data)
        except _UNREADABLE:
            self._not_json(data.strip())
            return
        if chunk.error is not None:
            self.error = True
            return
        if self.model is None:
            self._introduce(chunk)
        usage = None if chunk.usage is None else _usage(chunk.usage)
        choices = chunk.choices or []
        for choice in choices:
            delta = choice.delta
            if delta is not None and delta.content and usage is None and choice.finish_reason is None:
                self.recorder.token(at, choice.index)  # as nearly every chunk is
            else:
                self._choice(at, choice, usage)
        if usage is not None:
            self._total(choices, usage)

    def _not_json(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
        elif data.startswith(b'{"error"'):
            self.error = True  # transformers serve does not escape the text of its errors
        elif data:
            self.misread += 1

    def body(self, data: bytes) -> None:
        """A whole answer that was not streamed."""
        try:
            answer = _chunk.decode(data)
        except _UNREADABLE:
            self.misread += 1
            return
        self.error = answer.error is not None
        self._introduce(answer)
        self.usage = _usage(answer.usage)
        for choice in answer.choices or ():
            self._finished(choice)

    def _choice(self, at: float, choice: Choice, usage: Usage | None) -> None:
        delta = choice.delta
        if choice.text or (
            delta is not None
            and (delta.content or delta.tool_calls or delta.refusal or delta.function_call or delta.audio)
        ):
            self.recorder.token(at, choice.index, self._count(choice.index, usage))
        elif delta is not None and (delta.reasoning_content or delta.reasoning):
            self.recorder.token(at, choice.index, self._count(choice.index, usage), answer=False)
        if choice.finish_reason is not None:
            self._finished(choice)

    def _count(self, index: int, usage: Usage | None) -> int | None:
        """The tokens of one choice's event, from running usage; ``None`` where it does not tell."""
        if usage is None or not usage.output:
            return None
        before = self._running.get(index, 0)
        if usage.output < before or (not before and self.recorder.choices.get(index) is not None):
            return None  # it does not run: it went down, or began in the middle
        self._running[index] = usage.output
        tokens = usage.output - before
        return tokens if tokens <= _MOST_AT_ONCE else None

    def _total(self, choices: list[Choice], usage: Usage) -> None:
        """Take the usage of a chunk for the answer's, if it is."""
        if usage.output == 0 and self.recorder.events:
            return  # zeroed, as on each chunk of Ollama's completions: the tokens were seen
        if not choices or self._ends(choices):
            self.usage = usage
        elif usage.output:
            self.usage = self.usage or Usage(usage.input, None, usage.cached_input)

    def _ends(self, choices: list[Choice]) -> bool:
        """Whether usage beside choices is the answer's; a running count is only that of one choice."""
        of_one = len(self.recorder.choices) > 1 and bool(self._running)
        return not of_one and any(choice.finish_reason for choice in choices)

    def _introduce(self, chunk: Chunk) -> None:
        self.model = name(chunk.model)
        self.id = name(chunk.id)

    def _finished(self, choice: Choice) -> None:
        reason = name(choice.finish_reason)
        if reason:
            self.finish[choice.index] = reason


def _usage(raw: Any) -> Usage | None:
    if not isinstance(raw, dict):
        return None
    prompt = raw.get("prompt_tokens_details")
    completion = raw.get("completion_tokens_details")
    reasoning = raw.get("reasoning_tokens")
    if isinstance(completion, dict):
        reasoning = completion.get("reasoning_tokens", reasoning)
    return Usage(
        _count(raw.get("prompt_tokens")),
        _count(raw.get("completion_tokens")),
        _count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else None,
        _count(reasoning),
    )


def _count(value: object) -> int | None:
    """A number of tokens; ``None`` for what cannot be one."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
