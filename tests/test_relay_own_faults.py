"""Our own failures: a count and a line, never somebody's outage."""

import asyncio
from typing import cast

import pytest
from msgspec.structs import replace
from samples import STREAMED, who
from support.replay import asking, content, event, exchange

from exporter import catalog, config, counting, records
from exporter.core.outcome import Outcome
from exporter.core.recorder import Recorder
from exporter.core.timeline import Usage
from exporter.relay.client import Client
from exporter.relay.pool import Pool
from exporter.relay.reporter import Reporter
from exporter.relay.services import Services
from exporter.relay.turn import Turn
from exporter.wire import openai


def broken(*_: object) -> None:
    raise ZeroDivisionError


def test_a_stream_that_we_fail_to_understand_is_forwarded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai.Reader, "chunk", broken)
    followed = exchange()
    followed.request(0.0, asking())
    followed.response(200, [(b"content-type", b"text/event-stream")])
    events = [event(content(str(number))) for number in range(30)]
    sent = b""
    for at, data in enumerate(events, 1):
        sent += followed.forward(data)
        followed.observe(float(at), data)
    timeline = followed.end(99.0)
    assert sent + followed.rest() == b"".join(events)
    assert timeline is not None
    assert followed.uninspected == ["internal"]
    assert timeline.ttft is None


def test_a_whole_answer_that_we_fail_to_understand_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai.Reader, "body", broken)
    followed = exchange()
    followed.request(0.0, asking())
    followed.response(200, [(b"content-type", b"application/json")])
    followed.observe(1.0, b"{}")
    assert followed.end(2.0) is not None
    assert followed.uninspected == ["internal"]


class Transport:
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str) -> object:
        return name  # "sslcontext" is there, so that nothing is written past this transport

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def test_a_request_that_we_fail_to_handle_is_answered_and_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = config.load({}, None, {"upstream": "http://127.0.0.1:1"})
    told = Reporter(lambda: records.Hello(0, "boot", 1, 0.0, 0.0), lambda: None)
    services = Services(loaded, exchange()._settings, Pool(loaded.upstream, 1.0, 1.0), told, set[Turn]())
    monkeypatch.setattr(Turn, "_dispatch", broken)
    client, transport = Client(services, set()), Transport()
    client.connection_made(cast("asyncio.BaseTransport", transport))
    body = asking()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    client.data_received(head + body)
    assert transport.written.startswith(b"HTTP/1.1 500 ")
    assert b'"server_error"' in transport.written
    assert transport.closed
    assert not services.turns
    (ended,) = records.Frames().feed(told._ring[0][1])
    assert isinstance(ended, records.Ended)
    assert (ended.timeline.outcome, ended.timeline.status) == (Outcome.FAILED, 500)


def test_a_record_that_cannot_be_written_shrinks_to_its_counts_and_leaves_no_hole() -> None:
    told = Reporter(lambda: records.Hello(0, "boot", 1, 0.0, 0.0), lambda: None)
    for number, tokens in enumerate((5, 10**30, 7)):
        identity = who(span_id=f"{number:016x}")
        recorder = Recorder(identity, 100.0, told.gaps(counting.base_labels(identity)))
        told.opened(recorder)
        told.ended(recorder, replace(STREAMED, identity=identity, usage=Usage(output=tokens)))
    assert [number for number, _ in told._ring] == [1, 2]
    assert told._pending.counters[catalog.DEGRADED, ()] == 1
    assert told.live == 0
