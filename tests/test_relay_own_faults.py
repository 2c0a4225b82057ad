"""Our own failures: a count and a line, never somebody's outage."""

import pytest
from msgspec.structs import replace
from samples import STREAMED, who
from support.replay import asking, content, event, exchange

from exporter import catalog, counting, records
from exporter.core.recorder import Recorder
from exporter.core.timeline import Usage
from exporter.relay.reporter import Reporter
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
