"""One proxied request without sockets: what to forward, when, and what was learned.

1. Bytes are given out as soon as they can be used, and understood afterwards: ``forward`` first, ``observe`` second,
   and what needs no search waits to be understood together with its followers, in ``catch_up``.
2. What we ask of the engine in the client's stead (usage) the client never sees in its answer.
3. A body that is not understood is relayed as it is and followed as far as it can be.
4. However it ends, there is one Timeline.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from msgspec.structs import replace

from exporter.core import outcome as endings
from exporter.core.outcome import Ending, ErrorType, Outcome
from exporter.core.recorder import Recorder
from exporter.core.tally import Labels
from exporter.core.timeline import Identity, Timeline
from exporter.engines import Engine
from exporter.wire import heads, openai, splice, sse, trace
from exporter.wire.heads import Headers

EVENT_LIMIT = 4 * 1024 * 1024

_BATCH = 8
"""Reads that are understood together. One by one the decoder finds the CPU's caches cold from the kernel's work each
time: 9 of 50 us of CPU per chunk, measured at 256 streams of 50 tokens a second."""
_SMALL = 1024  # bytes of a read that may wait
_CR = 13

_USAGE = re.compile(rb'"usage"\s*:\s*\{')

_OPERATIONS = ((b"/chat/completions", "chat"), (b"/v1/completions", "text_completion"))


@dataclass(frozen=True, slots=True)
class Settings:
    """What all exchanges of a relay share. ``sample`` decides by trace id and the caller's own decision."""

    engine: Engine
    inspect_limit: int
    sample: Callable[[int, bool | None], bool]
    trace_id: Callable[[], int]
    span_id: Callable[[], int]
    gaps: Callable[[Labels], list[float]]
    label_headers: tuple[bytes, ...] = ()
    traces: bool = True  # whether our spans are exported, so that the engine may have them as parents


class Mode(Enum):
    """How an answer is followed."""

    NONE = "none"
    STREAM = "stream"
    WHOLE = "whole"


@lru_cache(maxsize=256)
def operation(method: bytes, target: bytes) -> str | None:
    """The operation of a request that is followed; ``None`` for one that is only relayed."""
    if method != b"POST":
        return None
    path = target.partition(b"?")[0]
    for suffix, name in _OPERATIONS:
        if path.endswith(suffix):
            return name
    return None


_REPLACED = heads.HOP_BY_HOP | {b"accept-encoding", b"content-length", b"expect"}
_REPLACED_TRACED = _REPLACED | {b"traceparent"}
_BEGUN_HERE = _REPLACED_TRACED | {b"tracestate"}  # W3C: without a valid parent it belongs to no trace


class Exchange:
    """Follows one request to a generation route."""

    __slots__ = ("_blind", "_blocks", "_choices", "_filters", "_labels", "_midway", "_operation", "_parent",
                 "_settings", "_size", "_splitter", "_streamed", "_swallow", "_tracestate", "_unasked", "_unread",
                 "_whole", "injected", "mode", "reader", "recorder", "started", "status", "timeline",
                 "uninspected")  # fmt: skip

    def __init__(self, settings: Settings, operation: str, headers: Headers) -> None:
        """Begin with the request's headers."""
        self._settings = settings
        self._operation = operation
        self._parent = trace.read(heads.value(headers, b"traceparent"))
        self._tracestate = heads.value(headers, b"tracestate") if self._parent else None
        self._labels = tuple([_text(heads.value(headers, name)) for name in settings.label_headers])
        self._splitter: sse.Splitter | None = None
        self._filters = False
        self._blocks: list[bytes] | None = None
        self._unread: list[tuple[float, bytes]] = []  # reads that were forwarded and are not understood yet
        self._midway = False  # the last read did not end with an event, so the next one is to be searched
        self._whole: list[bytes] = []
        self._size = 0
        self._swallow = False
        self._blind = False  # understanding failed, for a reason of our own
        self._unasked = False  # the engine tells usage to everybody, so its chunk is not ours to take out
        self._choices = 1
        self._streamed = False
        self.mode = Mode.NONE
        self.started = False  # the request is known, so that there will be a Timeline
        self.status: int | None = None
        self.injected = False
        self.uninspected: list[str] = []
        self.timeline: Timeline | None = None

    # The request

    def request(self, at: float, body: bytes | None) -> bytes:
        """The request has arrived, at ``at``; returns the body to send. ``None`` is a body too large to look at."""
        asked = None
        if body is None:
            self.uninspected.append("request_too_large")
        else:
            asked = openai.read_request(body)
            if asked is None:
                self.uninspected.append("request_not_json")
        identity = self._identity(asked)
        base = (identity.operation, identity.model or "", identity.provider, *identity.labels)
        self._choices = openai.choices_asked(asked) if asked else 1
        self.recorder = Recorder(identity, at, self._settings.gaps(base), choices=self._choices)
        self.reader = openai.Reader(self.recorder)
        self.started = True
        if body is None or asked is None or not identity.stream or not self._settings.engine.asks_usage:
            return body or b""
        spliced = splice.include_usage(body, asked.stream_options)
        self.injected = spliced is not None
        return spliced or body

    def arrived(self, at: float) -> None:
        """The last byte of a body that was sent on as it came was read at ``at``."""
        self.catch_up()
        if self.recorder.first_token is None:
            self.recorder.arrival = at

    @property
    def held(self) -> float:
        """From arrival to the moment the request was written to the engine, in seconds."""
        return self.recorder.own_queue

    def _identity(self, asked: openai.Request | None) -> Identity:
        parent = self._parent
        trace_id = int(parent.trace_id, 16) if parent else self._settings.trace_id()
        return Identity(
            operation=self._operation,
            model=openai.name(asked.model) if asked else None,
            provider=self._settings.engine.name,
            stream=asked is not None and asked.stream is True,
            trace_id=f"{trace_id:032x}",
            span_id=f"{self._settings.span_id():016x}",
            parent_id=parent.span_id if parent else None,
            sampled=self._settings.sample(trace_id, parent.sampled if parent else None),
            tracestate=_text(self._tracestate) or None,
            labels=self._labels,
        )

    def request_headers(self, headers: Headers) -> Headers:
        """The headers to send, without the body's length: our span is the parent, and no encoding we cannot read."""
        if not self._settings.traces:
            return [*heads.end_to_end(headers, _REPLACED), (b"accept-encoding", b"identity")]
        sent = heads.end_to_end(headers, _REPLACED_TRACED if self._parent else _BEGUN_HERE)
        identity = self.recorder.identity
        context = trace.write(identity.trace_id, identity.span_id, sampled=identity.sampled)
        return [*sent, (b"accept-encoding", b"identity"), (b"traceparent", context)]

    # The answer

    def response(self, status: int, headers: Headers) -> None:
        """The head of the answer; decides how its body is followed."""
        self.status = status
        if status >= 300:  # noqa: PLR2004 - errors and redirects are told by their status
            return
        encoding = heads.value(headers, b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            self.uninspected.append("answer_encoded")
            return
        kind = (heads.value(headers, b"content-type") or b"").lower()
        if kind.startswith(b"text/event-stream"):
            self.mode = Mode.STREAM
            self._streamed = True
            self._splitter = sse.Splitter(EVENT_LIMIT)
            self._filters = self.injected
        elif kind.startswith(b"application/json"):
            self.mode = Mode.WHOLE

    @property
    def waits(self) -> bool:
        """Whether the first token is still to come; where no tokens can be seen, the first byte of the answer."""
        self.catch_up()
        return self.status is None or (self.mode is Mode.STREAM and self.recorder.first_token is None)

    @property
    def filters(self) -> bool:
        """Whether bytes may be taken out of the answer, so that its length is not known beforehand."""
        return self._filters

    def forward(self, data: bytes) -> bytes:
        """What of these bytes to send on now; give the same bytes to ``observe`` afterwards."""
        if not self._filters:
            return data
        line = data.find(b"\n") == len(data) - 2 and data.endswith(b"\n\n") and _CR not in data
        if line and not self._midway and (b'"usage"' not in data or not _USAGE.search(data)):
            return data  # one whole event of one line, without usage, as nearly every read is
        return self._sift(data)

    def _sift(self, data: bytes) -> bytes:
        """What to send on of a read that has to be searched."""
        self.catch_up()
        splitter = self._splitter
        if splitter is None:
            return data
        blocks = self._blocks = splitter.feed(data)
        kept = b"".join(map(self._kept, blocks))
        if splitter.over:
            return kept + self._give_up("event_too_large")
        self._midway = splitter.midway or self._swallow
        return kept

    def observe(self, at: float, data: bytes) -> None:
        """Understand bytes that were read at ``at`` and are already on their way, or note them for ``catch_up``."""
        if self._blocks is not None:
            self._read(at, self._blocks)
            self._blocks = None
        elif self._splitter is not None:
            self._unread.append((at, data))
            if len(self._unread) >= _BATCH or len(data) > _SMALL:
                self.catch_up()
        elif self.mode is Mode.WHOLE:
            self._size += len(data)
            if self._size <= self._settings.inspect_limit:
                self._whole.append(data)
            else:
                self._give_up("answer_too_large")

    @property
    def holds(self) -> int:
        """Bytes of a whole answer that are kept to be understood at its end."""
        return self._size if self._whole else 0

    def catch_up(self) -> None:
        """Understand what ``observe`` noted: before anything is read from the recorder, and a few times a second."""
        if self._unread and not self._blind:
            try:
                self._understand()
            except Exception:  # noqa: BLE001 - as in _read
                self._blinded()
        self._unread.clear()

    def _understand(self) -> None:
        for at, data in self._unread:
            if self._filters and data[:7] == b"data: {":
                self.reader.chunk(at, data[6:-2])  # what was noted while filtering is an event of one line
            elif self._splitter is not None:
                self._events(at, self._splitter.feed(data))
                if self._splitter.over:
                    self._give_up("event_too_large")

    def stalled(self, begin: float, end: float) -> None:
        """Reading was stopped from ``begin`` to ``end`` because the client was slow."""
        self.catch_up()
        self.recorder.stalled(begin, end)

    def rest(self) -> bytes:
        """The answer is complete: what was still held back."""
        return self._kept(self._splitter.held) if self._filters and self._splitter else b""

    def _read(self, at: float, blocks: list[bytes]) -> None:
        """Understand events; should that fail, the answer goes on without being understood."""
        if self._blind:
            return
        try:
            self._events(at, blocks)
        except Exception:  # noqa: BLE001 - our own failure is a count, not the client's lost answer
            self._blinded()

    def _blinded(self) -> None:
        self._blind = True
        self.uninspected.append("internal")
        self.recorder.lost()

    def _events(self, at: float, blocks: list[bytes]) -> None:
        reader = self.reader
        for block in blocks:
            if block[:7] == b"data: {" and block.find(b"\n") == len(block) - 2 and b"\r" not in block:
                reader.chunk(at, block[6:-2])  # one line of JSON, as nearly every event is
            elif (event := sse.parse(block)) is not None:
                reader.event(at, event)

    def _kept(self, block: bytes) -> bytes:
        """A block as it is sent on: nothing, if it is the usage that only we asked for."""
        swallow, self._swallow = self._swallow, False
        if swallow and block == b"\n":
            return b""  # the LF of a CRLF whose CR ended the block that was taken out
        if self._unasked or not _USAGE.search(block):
            return block
        kind = openai.usage_chunk(sse.parse(block))
        self._unasked = kind is openai.UsageChunk.BESIDE
        if kind is not openai.UsageChunk.ONLY:
            return block
        self._swallow = block.endswith(b"\r")
        return b""

    def _give_up(self, reason: str) -> bytes:
        """Only relay from here on; returns the bytes that were held back."""
        held = self._splitter.held if self._splitter else b""
        self.uninspected.append(reason)
        self.recorder.lost()
        self.mode = Mode.NONE
        self._filters = False
        self._splitter = None
        self._whole.clear()
        return held

    # The end

    def end(self, at: float) -> Timeline | None:
        """The answer is complete and its last byte was read at ``at``."""
        self.catch_up()
        if self.mode is Mode.WHOLE:
            self._body(b"".join(self._whole))
        elif self._splitter is not None and self._splitter.held:
            self._read(at, [self._splitter.held])  # an event without the empty line, or a bare JSON error
        return self._finish(at, *self._ending())

    def _body(self, data: bytes) -> None:
        try:
            self.reader.body(data)
        except Exception:  # noqa: BLE001 - as in _read
            self._blinded()

    def cancelled(self, at: float) -> Timeline | None:
        """The client left at ``at``. If the answer had said how it ends, it does: many clients do not wait for more."""
        self.catch_up()
        return self._finish(at, *(self._ending() if self._decided else (Outcome.CANCELLED, ErrorType.NONE)))

    def failed(self, at: float, outcome: Outcome, error_type: ErrorType, status: int | None = None) -> Timeline | None:
        """It ended badly at ``at``; ``status`` is what the client was told, if it could be told."""
        self.catch_up()
        if self.status is None:
            self.status = status
        return self._finish(at, outcome, error_type)

    @property
    def _decided(self) -> bool:
        """Whether a status, an error or the finish reasons of all choices have told how it ends."""
        reader = self.reader
        if reader.error or (self.status is not None and endings.of_status(self.status) is not None):
            return True
        return len(reader.finish) >= self._choices and not self._unfinished

    @property
    def _unfinished(self) -> bool:
        """Whether a choice has tokens and no finish reason."""
        return not self.recorder.choices.keys() <= self.reader.finish.keys()

    def _ending(self) -> Ending:
        by_status = endings.of_status(self.status) if self.status is not None else None
        if by_status is not None:
            return by_status
        if self.reader.error:
            return Outcome.FAILED, ErrorType.ENGINE_ERROR
        reasons = self._reasons()
        if self.mode is Mode.STREAM and self._unfinished:
            return Outcome.FAILED, ErrorType.PROTOCOL
        if reasons or self.mode is Mode.STREAM:
            return endings.of_finish_reasons(reasons)
        if self.mode is Mode.WHOLE and not self._size:
            return Outcome.FAILED, ErrorType.PROTOCOL
        return Outcome.COMPLETED, ErrorType.NONE

    def _reasons(self) -> tuple[str, ...]:
        finish = self.reader.finish
        return tuple(finish.values() if len(finish) < 2 else [finish[choice] for choice in sorted(finish)])  # noqa: PLR2004

    def _finish(self, at: float, outcome: Outcome, error_type: ErrorType) -> Timeline | None:
        reader = self.reader
        timeline = self.recorder.finish(
            at,
            outcome,
            error_type,
            status=self.status,
            usage=reader.usage,
            finish_reasons=self._reasons(),
            response_model=reader.model,
            response_id=reader.id,
        )
        if timeline is None:
            return None
        if reader.misread:
            self.uninspected.append("answer_not_understood")
        identity = timeline.identity
        if identity.model is None or (self._streamed and not identity.stream):
            timeline = replace(timeline, identity=self._known(identity))
        self.timeline = timeline
        return timeline

    def _known(self, identity: Identity) -> Identity:
        """An identity with what only the answer told: a request that was not read has no model and no ``stream``."""
        model = self.reader.model if identity.model is None else identity.model
        return replace(identity, model=model, stream=identity.stream or self._streamed)


def _text(value: bytes | None) -> str:
    """A header's value, bounded: it goes into labels and records."""
    return value[: openai.NAME_LIMIT].decode("latin-1") if value else ""
