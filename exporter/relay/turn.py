"""One request on its way: from the client's connection to the engine's, and its answer back."""

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from exporter import catalog
from exporter.core.outcome import Ending, ErrorType, Outcome
from exporter.core.timeline import Timeline
from exporter.exchange import Exchange, operation
from exporter.relay import framing
from exporter.relay.framing import Framing, Head
from exporter.relay.services import BUFFER_LIMIT, Services
from exporter.relay.upstream import AnswerHead, Upstream
from exporter.wire import heads
from exporter.wire.heads import Headers

if TYPE_CHECKING:
    from exporter.relay.client import Client

_LARGE = 64 * 1024  # bytes of an answer that are not kept for later
_REPLAY_WITHIN = 1.0
_REFUSALS: dict[int, Ending] = {  # what ends otherwise than by the client's fault
    408: (Outcome.TIMED_OUT, ErrorType.IDLE_TIMEOUT),
    500: (Outcome.FAILED, ErrorType.PROTOCOL),
}
_UNREAD = heads.HOP_BY_HOP | {b"content-length", b"expect"}


class Turn:
    """A request and its answer.

    The request's body is either held until it is complete, to be looked into (``_held``), or sent on as it comes
    (``uploading``). Whatever ends the turn, it ends once, in ``_over``.
    """

    __slots__ = ("_chunked", "_early", "_ends", "_exchange", "_held", "_kept", "_paused_at", "_replayable", "_replayed",
                 "_request", "_services", "_size", "_stream_body", "_told", "_upstream", "active_at", "client",
                 "complete", "head", "over", "sent_at", "tunnel", "upgrade", "uploading")  # fmt: skip

    def __init__(self, client: "Client", services: Services, head: Head) -> None:
        """A request whose head was received from ``client``."""
        self.client = client
        self.head = head
        self.complete = False  # the request was received whole
        self.uploading = False  # its body is being sent on as it comes
        self.upgrade = False  # a WebSocket was asked for
        self.tunnel = False  # and agreed to: bytes go both ways
        self.over = False
        self.sent_at: float | None = None  # when it was written to the engine
        self.active_at = monotonic()  # when a byte last came from the engine, or we began to wait for one
        self._services = services
        self._upstream: Upstream | None = None
        self._exchange: Exchange | None = None
        self._held = bytearray()
        self._kept = 0  # bytes of the body that are in memory, and counted in the services' ``buffered``
        self._size = 0
        self._early = bytearray()
        self._request = b""
        self._replayable = False
        self._replayed = False
        self._told = False  # the client has the head of the answer
        self._chunked = False
        self._ends = True  # the answer's end is known without the connection's
        self._stream_body = False
        self._paused_at: float | None = None

    # The request

    def begin(self) -> None:
        """The turn's time has come: the answers to all earlier requests on this connection were sent."""
        services, head = self._services, self.head
        services.turns.add(self)
        largest = services.config.max_body
        if largest and (head.length or 0) > largest:
            self._refuse_size()
            return
        name = operation(head.method, head.target)
        if name is not None:
            self._exchange = Exchange(services.settings, name, head.headers)
        if head.expects:
            self.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        limit = services.config.inspect_limit
        if self._exchange is None or (head.length or 0) > limit or services.buffered > BUFFER_LIMIT:
            self._send_unread()

    def body(self, data: bytes) -> None:
        """A part of the request's body."""
        services = self._services
        self.active_at = monotonic()
        self._size += len(data)
        limit = services.config.max_body
        if limit and self._size > limit:
            self._refuse_size()
            return
        if self._stream_body:
            self._upload(data)
            return
        self._held += data
        self._kept += len(data)
        services.buffered += len(data)
        if self._size > services.config.inspect_limit or services.buffered > BUFFER_LIMIT:
            self._send_unread()

    def _refuse_size(self) -> None:
        limit = self._services.config.max_body
        self.refuse(413, f"the request body is larger than {limit} bytes", "max_body")

    def received(self, at: float) -> None:
        """The request was received whole; its last byte was read at ``at``."""
        self.complete = True
        if not self._stream_body:
            self._send_whole(at)
            return
        self.uploading = False
        if self.head.chunked:
            self._put(framing.LAST_CHUNK)
        if self._exchange is not None:
            self._exchange.arrived(at)

    def _send_whole(self, at: float) -> None:
        exchange = self._exchange
        if exchange is None or self.over:
            return
        body = exchange.request(at, bytes(self._held))
        self._held.clear()
        self._services.reporter.opened(exchange.recorder)
        headers = exchange.request_headers(self.head.headers)
        if body or self.head.length is not None or self.head.chunked:
            headers.append((b"content-length", b"%d" % len(body)))
        self._request = self._head_line(headers) + body
        self._replayable = True
        self._dispatch()

    def _send_unread(self) -> None:
        """Send the body on as it comes: nobody looks into it, or it is too large to be looked into."""
        exchange, head = self._exchange, self.head
        if exchange is not None:
            exchange.request(monotonic(), None)
            self._services.reporter.opened(exchange.recorder)
            headers = exchange.request_headers(head.headers)
        else:
            headers = heads.end_to_end(head.headers, _UNREAD)
        if head.chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        elif head.length is not None:
            headers.append((b"content-length", b"%d" % head.length))
        if self.upgrade:
            headers += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        self._request = self._head_line(headers)
        self._replayable = not head.chunked and not head.length
        self._stream_body = True
        self.uploading = not self.complete and not self._replayable
        if self._held:
            self._upload(bytes(self._held))
        self._held.clear()
        self._forget_body()
        self._dispatch()

    def _head_line(self, headers: Headers) -> bytes:
        return heads.write_request(self.head.method, self._services.prefix + self.head.target, headers)

    def _forget_body(self) -> None:
        """The body is not needed any more: it was sent, and will not be sent again."""
        self._services.buffered -= self._kept
        self._kept = 0

    def _upload(self, data: bytes) -> None:
        self._put(framing.chunk(data) if self.head.chunked else data)

    def _put(self, data: bytes) -> None:
        if self._upstream is not None:
            self._upstream.write(data)
        else:
            self._early += data
            self.client.stop_reading()

    # The engine's connection

    def _dispatch(self) -> None:
        # What cannot be sent again must not meet a connection that the engine is just closing.
        upstream = self._services.pool.take() if self._replayable else None
        if upstream is not None:
            self._start(upstream)
        else:
            self._services.pool.connect(self._start, self._no_connection)

    def _start(self, upstream: Upstream) -> None:
        if self.over:
            self._services.pool.give_back(upstream)
            return
        self._upstream = upstream
        upstream.start(self)
        if self.client.blocked:
            self.client_slow()
        upstream.write(self._request + self._early if self._early else self._request)
        self.sent_at = self.active_at = monotonic()
        if self._early:
            self._early.clear()
            if not upstream.blocked:
                self.client.go_on_reading()
        if self._exchange is not None:
            self._exchange.recorder.dispatched(self.sent_at)

    def _no_connection(self, error: OSError | TimeoutError) -> None:
        if self.over:
            return
        config = self._services.config
        reason = f"no answer within {config.connect_timeout:g} s" if isinstance(error, TimeoutError) else str(error)
        self._fail(ErrorType.CONNECT, 502, f"cannot connect to the engine at {self._services.pool.name}: {reason}")

    # The answer

    def answer(self, at: float, head: AnswerHead | None, body: bytes, *, complete: bool) -> None:
        """What one read from the engine brought; it goes on to the client first."""
        if self.over:
            return
        exchange = self._exchange
        self.active_at = at
        if complete:
            self._upstream = None  # it is the pool's again: a client that is slow now must not stop it
        out = self._answer_head(head) if head is not None else b""
        sent = exchange.forward(body) if exchange is not None and body else body
        if complete and exchange is not None:
            sent += exchange.rest()
        self.client.write(out + (framing.chunk(sent, last=complete) if self._chunked else sent))
        if exchange is not None:
            if head is not None:
                self._services.reporter.added_latency(exchange.held + monotonic() - at)
            if body:
                exchange.observe(at, body)
        if complete:
            if exchange is not None and exchange.holds > _LARGE:
                self._ended(exchange, at)
            elif exchange is not None:
                self._services.reporter.later(partial(self._ended, exchange, at))
            self._over(keep=self._ends and self.complete)

    def more(self, at: float, body: bytes) -> None:
        """A part of the answer's body, neither its first nor its last: what nearly every read brings."""
        exchange = self._exchange
        self.active_at = at
        sent = body if exchange is None else exchange.forward(body)
        if sent:
            self.client.write(b"%x\r\n%b\r\n" % (len(sent), sent) if self._chunked else sent)
        if exchange is not None:
            exchange.observe(at, body)

    def catch_up(self) -> None:
        """Understand what was only sent on so far."""
        if self._exchange is not None:
            self._exchange.catch_up()

    def _answer_head(self, head: AnswerHead) -> bytes:
        exchange = self._exchange
        self._forget_body()
        self._request = b""
        if exchange is not None:
            exchange.response(head.status, head.headers)
        framed = framing.framing(self.head, head, filtered=exchange is not None and exchange.filters)
        self._chunked = framed is Framing.CHUNKS
        self._ends = framed is not Framing.CLOSE
        last = not (self.head.keep and self.complete and self._ends)
        if last or self._services.draining or self.upgrade:
            self.client.keep = False
        self._told = True
        return framing.head(self.head, head, framed, close=not self.client.keep)

    def answer_over(self, at: float, upstream: Upstream, *, clean: bool) -> None:
        """The engine closed its connection at ``at``, cleanly or by a reset, while it worked for this turn."""
        self._upstream = None
        if self.over:
            return
        if self.tunnel:
            self._over(keep=False)
        elif upstream.pooled and not upstream.answered and self._may_replay(at):
            self._replayed = True
            self._services.reporter.count(catalog.REPLAYS)
            self._services.pool.connect(self._start, self._no_connection)
        elif self._told and upstream.until_close and clean:
            self.answer(at, None, b"", complete=True)
        else:
            self._fail(ErrorType.RESET, 502, "the engine closed the connection before its answer was complete")

    def _may_replay(self, at: float) -> bool:
        """Whether the request may be sent once more: an engine that worked on it for a while may have died of it."""
        soon = self.sent_at is not None and at - self.sent_at < _REPLAY_WITHIN
        return soon and self._replayable and not self._replayed

    def answer_broken(self, message: str) -> None:
        """The engine sent something that is not an answer."""
        self._fail(ErrorType.PROTOCOL, 502, message)

    def switched(self, head: AnswerHead, rest: bytes) -> None:
        """The engine agreed to an upgrade: bytes go both ways from here on."""
        if not self.upgrade:
            self._fail(ErrorType.PROTOCOL, 502, "the engine switched protocols without being asked")
            return
        self.tunnel = True
        self.client.keep = False
        headers = [*heads.end_to_end(head.headers), (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        self._told = True
        self.client.write(heads.write_response(head.status, head.reason, headers) + rest)
        self.client.switched()

    def to_engine(self, data: bytes) -> None:
        """Bytes of a tunnel."""
        if self._upstream is not None:
            self._upstream.write(data)

    # Both sides' speed

    def client_slow(self) -> None:
        """The client does not take what is sent: stop reading the engine."""
        self._paused_at = monotonic()
        if self._upstream is not None:
            self._upstream.stop_reading()

    def client_ready(self) -> None:
        """It takes bytes again."""
        now = monotonic()
        if self._paused_at is not None and self._exchange is not None:
            self._exchange.stalled(self._paused_at, now)
        self._paused_at = None
        self.active_at = now
        if self._upstream is not None:
            self._upstream.go_on_reading()

    # The end

    def client_gone(self) -> None:
        """The client left: the engine must know at once."""
        if self.over:
            return
        exchange = self._exchange
        if exchange is not None and exchange.started:
            self._tell(exchange, exchange.cancelled(monotonic()))
        self._over(keep=False)

    def abort(self, reason: str) -> None:
        """End it now, for a reason of our own."""
        self._fail(ErrorType.RESET, 503, reason)

    def check(self, now: float) -> None:
        """End the turn if its time is over."""
        config = self._services.config
        if self.over or self.tunnel:
            return
        if self._paused_at is not None:
            if now - self._paused_at > config.idle_timeout:
                self.client.abort()
        elif not self.complete:
            self._check_request(now)
        elif self.sent_at is not None:
            self._check_engine(now)

    def _check_request(self, now: float) -> None:
        limit = self._services.config.idle_timeout
        if now - self.active_at <= limit:
            return
        if self._upstream is not None and self._upstream.blocked:
            message = f"the engine took nothing of the request for {limit:g} s"
            self._fail(ErrorType.IDLE_TIMEOUT, 504, message, Outcome.TIMED_OUT)
        else:
            self.refuse(408, f"the request's body did not go on within {limit:g} s", "body_timeout")

    def _check_engine(self, now: float) -> None:
        config, exchange = self._services.config, self._exchange
        waiting = not self._told if exchange is None else exchange.waits
        if waiting and self.sent_at is not None and now - self.sent_at > config.first_token_timeout:
            message = f"the engine gave no token within {config.first_token_timeout:g} s"
            self._fail(ErrorType.FIRST_TOKEN_TIMEOUT, 504, message, Outcome.TIMED_OUT)
        elif not waiting and now - self.active_at > config.idle_timeout:
            message = f"the engine was silent for {config.idle_timeout:g} s"
            self._fail(ErrorType.IDLE_TIMEOUT, 504, message, Outcome.TIMED_OUT)

    def _fail(self, error_type: ErrorType, status: int, message: str, outcome: Outcome = Outcome.FAILED) -> None:
        """Tell the client in OpenAI's shape where it knows nothing yet; otherwise cut its answer, cleanly."""
        if self.over:
            return
        told, self._told = self._told, True
        keep = not told and self.complete and self.client.keep and self.head.keep and not self._services.draining
        if not told:
            kind = "timeout" if outcome is Outcome.TIMED_OUT else "upstream_error"
            body = self.head.method != b"HEAD"
            self.client.write(heads.error(status, message, kind, close=not keep, body=body))
        exchange = self._exchange
        if exchange is not None and exchange.started:
            self._tell(exchange, exchange.failed(monotonic(), outcome, error_type, None if told else status))
        self._over(keep=keep)

    def refuse(self, status: int, message: str, reason: str) -> None:
        """Say no to a request before the engine has it."""
        self._services.reporter.count(catalog.REFUSED, (reason,))
        told, self._told = self._told, True
        if not told:
            self.client.write(heads.error(status, message, heads.refusal(status), close=True))
        exchange = self._exchange
        if exchange is not None and exchange.started:
            outcome, error_type = _REFUSALS.get(status, (Outcome.INVALID, ErrorType.NONE))
            self._tell(exchange, exchange.failed(monotonic(), outcome, error_type, None if told else status))
        self._over(keep=False)

    def _ended(self, exchange: Exchange, at: float) -> None:
        """Understand an answer that was complete at ``at``."""
        self._tell(exchange, exchange.end(at))

    def _tell(self, exchange: Exchange, timeline: Timeline | None) -> None:
        reporter = self._services.reporter
        for reason in exchange.uninspected:
            reporter.count(catalog.UNINSPECTED, (reason,))
        if timeline is not None:
            reporter.ended(exchange.recorder, timeline)

    def _over(self, *, keep: bool) -> None:
        if self.over:
            return
        self.over = True
        self._forget_body()
        self._services.turns.discard(self)
        if self._upstream is not None:
            self._upstream.turn = None
            self._upstream.abort()
            self._upstream = None
        self.client.turn_over(self, keep=keep)
