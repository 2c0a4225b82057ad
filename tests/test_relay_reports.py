"""What a relay tells: nothing is lost or told twice, whatever happens to the channel; nothing grows without a limit."""

from collections.abc import Iterator

import pytest
from samples import who
from support.raw import CHAT, RawClient, chat
from support.relay import RelayProcess
from support.scripted_engine import ScriptedEngine
from support.waiting import until

from exporter import catalog, counting, records
from exporter.core.outcome import Outcome
from exporter.core.recorder import Recorder
from exporter.core.tally import Tally
from exporter.core.timeline import Timeline
from exporter.relay.reporter import Reporter


class Wire:
    """A channel that keeps what is written."""

    def __init__(self) -> None:
        self.frames = records.Frames()
        self.messages: list[records.Message] = []
        self.full = False

    def write(self, data: bytes) -> None:
        self.messages.extend(self.frames.feed(data))

    def ended(self) -> list[Timeline]:
        return [one.timeline for one in self.messages if isinstance(one, records.Ended)]

    def tally(self) -> Tally:
        total = Tally()
        for one in self.messages:
            if isinstance(one, records.Pulse):
                total.merge(records.pulse_tally(one))
        return total


def reporter(ring_bytes: int = 1 << 20) -> Reporter:
    return Reporter(lambda: records.Hello(0, "boot", 1, 0.0, 0.0), lambda: None, ring_bytes)


def request(told: Reporter, number: int) -> Recorder:
    identity = who(span_id=f"{number:016x}")
    recorder = Recorder(identity, 100.0, told.gaps(counting.base_labels(identity)))
    told.opened(recorder)
    return recorder


def end(told: Reporter, recorder: Recorder) -> None:
    timeline = recorder.finish(104.0, Outcome.COMPLETED, status=200, finish_reasons=("stop",))
    assert timeline is not None
    told.ended(recorder, timeline)


def test_a_new_session_gets_what_the_last_one_did_not_acknowledge() -> None:
    told, first, second = reporter(), Wire(), Wire()
    told.connected(first)
    told.acknowledged(0)
    for number in range(3):
        end(told, request(told, number))
    told.flush()
    assert len(first.ended()) == 3
    told.acknowledged(1)
    told.disconnected(first)
    end(told, request(told, 3))
    told.connected(second)
    assert second.ended() == []  # not before the observer says what it has
    told.acknowledged(2)
    assert [one.identity.span_id for one in second.ended()] == [f"{number:016x}" for number in (2, 3)]
    assert isinstance(second.messages[-1], records.CaughtUp)


def test_a_full_ring_keeps_counts_and_says_what_it_gave_up() -> None:
    told, wire = reporter(ring_bytes=2000), Wire()
    for number in range(50):
        recorder = request(told, number)
        recorder.token(101.0)
        end(told, recorder)
    told.pulse(105.0)
    told.connected(wire)
    told.acknowledged(0)
    kept = len(wire.ended())
    assert 0 < kept < 50
    told.acknowledged(kept)
    told.pulse(106.0)
    degraded = wire.tally()
    assert degraded.counters[catalog.DEGRADED, ()] == 50 - kept
    finished = [count for (name, _), count in degraded.counters.items() if name == catalog.REQUESTS]
    assert sum(finished) == 50 - kept
    ttft = next(cells for (name, _), cells in degraded.histograms.items() if name == catalog.TTFT)
    assert ttft.count == 50 - kept


def test_an_opened_request_that_shrinks_to_counts_is_closed_by_name() -> None:
    told, wire = reporter(ring_bytes=400), Wire()
    told.connected(wire)
    told.acknowledged(0)
    live = request(told, 1)
    told.pulse(100.5)
    end(told, request(told, 2))
    end(told, request(told, 3))
    end(told, live)
    told.acknowledged(100)
    told.pulse(101.0)
    pulses = [one for one in wire.messages if isinstance(one, records.Pulse)]
    assert [one.identity.span_id for one in pulses[0].opened] == [live.identity.span_id]
    closed = [name for pulse in pulses for name in pulse.closed]
    ended = [one.identity.span_id for one in wire.ended()]
    assert sorted(closed + ended).count(live.identity.span_id) == 1


def test_names_that_clients_make_up_do_not_grow_without_a_limit() -> None:
    told = reporter(ring_bytes=0)
    for number in range(20_000):
        identity = who(f"made-up-{number}", span_id=f"{number:016x}")
        recorder = Recorder(identity, 100.0, told.gaps(counting.base_labels(identity)))
        told.opened(recorder)
        end(told, recorder)
        if number % 1000 == 0:
            told.pulse(101.0)
    assert len(told._gaps) < 10_000
    assert len(told._pending.histograms) < 10_000


def test_an_idle_relay_is_silent_after_it_said_that_nothing_is_live() -> None:
    told, wire = reporter(), Wire()
    told.connected(wire)
    told.acknowledged(0)
    live = request(told, 1)
    told.pulse(100.25)
    end(told, live)
    for _ in range(3):
        told.pulse(101.0)
    pulses = [one for one in wire.messages if isinstance(one, records.Pulse)]
    assert [len(one.live) for one in pulses] == [1, 0]


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


def test_a_channel_that_ends_is_asked_for_again_and_nothing_is_lost(engine: ScriptedEngine) -> None:
    with RelayProcess(engine.url) as relay:
        with RawClient(relay.port) as client:
            client.post(CHAT, chat({"tokens": 2}))
            client.answer()
        relay.ended(1)
        relay.drop_channel()
        until(lambda: relay.lost_channels == 1, "the relay to say that its channel is lost")
        with RawClient(relay.port) as client:
            client.post(CHAT, chat({"tokens": 2}))
            assert client.answer().status == 200
        relay.observe()
        assert len(relay.ended(2)) == 2
        assert relay.hellos == 2
