"""Messages of relays folded into totals, gauges and log lines; the session that guards their order."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from samples import STREAMED, streamed, who
from support.observing import FACTS, configuration

from exporter import catalog, records
from exporter.core.outcome import ErrorType, Outcome
from exporter.core.recorder import LivePhase
from exporter.core.tally import Cells, Tally
from exporter.core.timeline import Timeline, Usage
from exporter.observer.access import AccessLog
from exporter.observer.fold import Fold
from exporter.observer.gauges import gauges
from exporter.observer.rates import TokenRates
from exporter.observer.session import ChannelError, Session
from exporter.observer.status import quantile, status
from exporter.records import Ack, CaughtUp, Ended, Hello, Live, Opened, Pulse

KEY = (0, "boot")
BASE = ("chat", "llama-3-8b", "vllm")
HELLO = Hello(0, "boot", 4711, wall=1_000_000.0, monotonic=50.0)
ZERO = 1_000_000.0 - 50.0


def pulse(number: int, **changes: object) -> Pulse:
    empty: dict[str, object] = {"live": [], "opened": [], "closed": [], "counters": [], "histograms": []}
    return Pulse(number, **({"at": 100.0} | empty | changes))  # type: ignore[arg-type]  # the fields' own types


class Spans:
    """A span sink that keeps what it was given."""

    def __init__(self) -> None:
        self.got: list[tuple[Timeline, float]] = []
        self.waiting = 0
        self.dropped = 0

    def record(self, timeline: Timeline, wall: float) -> None:
        self.got.append((timeline, wall))


class Requests:
    def __init__(self) -> None:
        self.got: list[Timeline] = []

    def record(self, timeline: Timeline) -> None:
        self.got.append(timeline)


def greeted(fold: Fold | None = None) -> tuple[Fold, Session]:
    fold = fold or Fold()
    session = Session(fold, KEY)
    session.feed(records.frame(HELLO))
    return fold, session


def total(fold: Fold, name: str, *labels: str) -> float:
    return sum(
        count for (of, has), count in fold.totals.totals.counters.items() if of == name and set(labels) <= set(has)
    )


def test_an_ended_request_reaches_every_sink_with_admitted_names() -> None:
    spans, requests = Spans(), Requests()
    fold, session = greeted(Fold(models=("llama-3-8b",), spans=spans, requests=requests))
    made_up = streamed(model="made-up", status=404, outcome=Outcome.INVALID, error_type=ErrorType.UPSTREAM_4XX)
    session.feed(records.frame(Ended(1, STREAMED)) + records.frame(Ended(2, made_up)))
    assert total(fold, catalog.REQUESTS, "llama-3-8b", "completed") == 1
    assert total(fold, catalog.REQUESTS, "unknown", "invalid") == 1
    assert [timeline.identity.model for timeline, _ in spans.got] == ["llama-3-8b", "unknown"]
    assert [timeline.identity.model for timeline in requests.got] == ["llama-3-8b", "made-up"]
    assert spans.got[0][1] == ZERO


def test_a_pulse_is_counted_and_an_opened_request_that_ends_is_closed() -> None:
    fold, session = greeted()
    tally = Tally()
    tally.inc(catalog.TOKENS, (*BASE, "output"), 20)
    tally.observe(catalog.ITL, BASE, catalog.grid(catalog.ITL), 0.02)
    counters, histograms = records.tally_rows(tally)
    opened = [Opened(who(span_id=f"{number:016x}"), 99.0) for number in (1, 2, 3)]
    session.feed(records.frame(pulse(1, opened=opened, counters=counters, histograms=histograms)))
    session.feed(records.frame(pulse(2, closed=[f"{2:016x}"])))
    session.feed(records.frame(Ended(3, replace(STREAMED, identity=who(span_id=f"{1:016x}"), ticked=20))))
    assert list(fold.relays[KEY].opened) == [f"{3:016x}"]
    assert total(fold, catalog.TOKENS, "output") == 129
    assert fold.totals.totals.histograms[catalog.ITL, BASE].count == 1
    assert fold.folded(KEY) == 3


def test_a_relay_that_died_fails_what_it_had_open_at_its_last_pulse() -> None:
    spans = Spans()
    fold, session = greeted(Fold(spans=spans))
    session.feed(records.frame(pulse(1, at=103.0, opened=[Opened(who(), 99.0)])))
    fold.gone(KEY)
    fold.gone(KEY)
    ((timeline, wall),) = spans.got
    assert (timeline.arrival, timeline.end, wall) == (99.0, 103.0, ZERO)
    assert (timeline.outcome, timeline.error_type) == (Outcome.FAILED, ErrorType.RELAY_DIED)
    assert total(fold, catalog.REQUESTS, "failed", "relay_died") == 1
    assert KEY not in fold.relays


def test_a_new_boot_begins_at_one_beside_the_old() -> None:
    fold, session = greeted()
    session.feed(records.frame(Ended(1, STREAMED)))
    second = Session(fold, (0, "second"))
    second.feed(records.frame(Hello(0, "second", 4712, 1_000_000.0, 60.0)) + records.frame(Ended(1, STREAMED)))
    assert total(fold, catalog.REQUESTS) == 2
    assert (fold.folded(KEY), fold.folded((0, "second")), fold.folded((1, "none"))) == (1, 1, 0)


def test_state_comes_back_whole_from_a_dump() -> None:
    fold, session = greeted()
    live = [Live(BASE, {"decode": (1, 90.0)}, 99.0)]
    counters = [(catalog.TOKENS, (*BASE, "output"), 5.0)]
    session.feed(records.frame(Ended(1, STREAMED)))
    session.feed(records.frame(pulse(2, opened=[Opened(who(), 99.0)], live=live, counters=counters)))
    again = Fold()
    again.load(fold.dump())
    assert again.totals.totals == fold.totals.totals
    assert (again.relays, again.bases) == (fold.relays, fold.bases)
    assert gauges(again, None, 100.0) == gauges(fold, None, 100.0)
    assert again.folded(KEY) == 2


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 20])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="are no state of an observer"):
        Fold().load(data)


def test_a_state_with_other_header_labels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"header labels \(\), \('tenant',\) are configured"):
        Fold(header_labels=("tenant",)).load(Fold().dump())


def test_dropped_spans_are_counted_and_those_that_waited_at_a_crash_too() -> None:
    spans = Spans()
    fold = Fold(spans=spans)
    spans.dropped, spans.waiting = 3, 2
    again = Fold(spans=Spans())
    again.load(fold.dump())
    again.settle()
    assert total(fold, catalog.SPANS_DROPPED) == 3
    assert total(again, catalog.SPANS_DROPPED) == 5


def test_folded_label_values_are_counted() -> None:
    fold, session = greeted()
    for number in range(1, 70):
        session.feed(records.frame(Ended(number, streamed(model=f"model-{number}"))))
    fold.settle()
    assert total(fold, catalog.FOLDED) == 5


@pytest.mark.parametrize(
    ("sent", "reason", "message"),
    [
        (b"\xff\xff\xff\xff", "garbage", "frame of 4294967295 bytes"),
        (b"\x00\x00\x00\x01\x07", "garbage", "is not a message"),
        (records.frame(HELLO), "order", "Hello twice"),
        (records.frame(Ack(1)), "order", "Ack, which a relay does not send"),
        (records.frame(pulse(1)) + records.frame(pulse(3)), "order", "number 3, expected 2"),
        (records.frame(pulse(1)) + records.frame(pulse(1)), "order", "number 1, expected 2"),
        (records.frame(pulse(1, counters=[("no_such_metric", (), 1.0)])), "garbage", "KeyError"),
        (records.frame(pulse(1, counters=[(catalog.TOKENS, ("chat",), 1.0)])), "garbage", "IndexError"),
    ],
)
def test_what_a_relay_may_not_send_ends_the_session(sent: bytes, reason: str, message: str) -> None:
    _, session = greeted()
    with pytest.raises(ChannelError, match=message) as caught:
        session.feed(sent)
    assert caught.value.reason == reason


@pytest.mark.parametrize("first", [records.frame(pulse(1)), records.frame(CaughtUp())])
def test_hello_comes_first(first: bytes) -> None:
    with pytest.raises(ChannelError, match="before Hello"):
        Session(Fold(), KEY).feed(first)


def test_hello_of_somebody_else_is_refused() -> None:
    with pytest.raises(ChannelError, match="expected"):
        Session(Fold(), (1, "boot")).feed(records.frame(HELLO))


def test_records_lost_with_a_checkpoint_are_counted_and_the_rest_is_taken() -> None:
    fold, session = greeted()
    session.feed(records.frame(Ended(500, STREAMED)) + records.frame(Ended(501, STREAMED)))
    assert fold.folded(KEY) == 501
    assert total(fold, catalog.CHANNEL_ERRORS, "lost") == 1


def test_gauges_of_all_relays_together() -> None:
    fold, session = greeted(Fold(models=("llama-3-8b",)))
    other = Session(fold, (1, "boot"))
    other.feed(records.frame(Hello(1, "boot", 1, 1_000_000.0, 50.0)))
    live = [Live(BASE, {"decode": (2, 90.0), "waiting": (1, 99.0)}, 99.5)]
    session.feed(records.frame(pulse(1, live=live)))
    other.feed(records.frame(pulse(1, live=[Live(BASE, {"decode": (1, 80.0)}, 99.75)])))
    found = gauges(fold, FACTS, 100.0)
    assert found[catalog.ACTIVE, (*BASE, "decode")] == 3
    assert found[catalog.ACTIVE, (*BASE, "waiting")] == 1
    assert found[catalog.ACTIVE, (*BASE, "queueing")] == 0
    assert found[catalog.OLDEST, (*BASE, "decode")] == 20
    assert (catalog.OLDEST, (*BASE, "queueing")) not in found
    assert found[catalog.LAST_TOKEN, BASE] == ZERO + 99.75
    assert found[catalog.ENGINE_UP, ()] == 1
    assert found[catalog.RESTARTS, ("relay",)] == 1


def test_a_relay_that_tells_nothing_any_more_has_nothing_live() -> None:
    fold, session = greeted()
    session.feed(records.frame(pulse(1, live=[Live(BASE, {"decode": (2, 90.0)}, 99.5)])))
    fold.silent(KEY)
    assert not any(value for (name, _), value in gauges(fold, None, 100.0).items() if name == catalog.ACTIVE)


def test_tokens_per_second_move_while_streams_run() -> None:
    fold, session = greeted(Fold(models=("llama-3-8b",)))
    for number in range(1, 41):  # ten seconds of 50 tokens a second
        counters = [(catalog.TOKENS, (*BASE, "output"), 12.5)]
        session.feed(records.frame(pulse(number, at=100.0 + number / 4, counters=counters)))
    assert gauges(fold, None, 110.0)[catalog.TPS, BASE] == pytest.approx(50)
    assert gauges(fold, None, 115.0)[catalog.TPS, BASE] == pytest.approx(25)
    assert gauges(fold, None, 121.0)[catalog.TPS, BASE] == 0


def test_only_streamed_tokens_that_no_pulse_told_are_added_at_the_end() -> None:
    fold, session = greeted()
    whole = replace(STREAMED, first_token=None, last_token=None, usage=Usage(1, 1000))
    session.feed(records.frame(Ended(1, replace(STREAMED, ticked=29))) + records.frame(Ended(2, whole)))
    assert gauges(fold, None, 105.0)[catalog.TPS, BASE] == pytest.approx(10)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1000)), max_size=50), st.floats(100, 200))
def test_a_window_never_holds_more_than_came(tokens: list[tuple[float, float]], now: float) -> None:
    rates = TokenRates()
    for at, count in tokens:
        rates.add(BASE, at, count)
    again = TokenRates()
    again.load(rates.dump())
    assert again.read(now) == rates.read(now)
    newest = sum(count for at, count in tokens if at > now - 10.5)
    assert rates.read(now).get(BASE, 0.0) <= newest / 10 + 1e-6


def test_quantiles_are_exact_to_a_cell() -> None:
    grid, cells = catalog.grid(catalog.TTFT), Cells()
    grid.count([number / 1000 for number in range(1, 1001)], cells.counts)
    assert quantile(cells, grid, 0.5) == pytest.approx(0.5, rel=0.022)
    assert quantile(cells, grid, 0.99) == pytest.approx(0.99, rel=0.022)
    assert quantile(Cells({len(grid.edges): 1}), grid, 0.5) == grid.edges[-1]
    assert quantile(Cells(), grid, 0.5) is None
    assert quantile(None, grid, 0.5) is None


def test_status_is_a_row_for_each_set_of_labels() -> None:
    fold, session = greeted(Fold(header_labels=("tenant",)))
    bad = streamed("llama-3-8b", "acme", outcome=Outcome.FAILED, error_type=ErrorType.RESET)
    session.feed(records.frame(Ended(1, streamed("llama-3-8b", "acme"))) + records.frame(Ended(2, bad)))
    found = status(configuration(), fold, None, {1: 22, 0: 21}, 105.0)
    (row,) = found.rows
    assert (row.operation, row.model, row.provider, row.labels) == ("chat", "llama-3-8b", "vllm", ("acme",))
    assert row.requests == {"completed": 1, "failed": 1}
    assert row.active == {phase.value: 0 for phase in LivePhase}
    assert row.ttft.p50 == pytest.approx(0.5, rel=0.03)
    assert (found.engine_up, found.ready, list(found.relays)) == (None, None, [0, 1])


def logged(caplog: pytest.LogCaptureFixture, timeline: Timeline, **flags: str) -> list[dict[str, object]]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "exporter"):
        AccessLog(configuration(**{name.replace("_", "-"): value for name, value in flags.items()})).record(timeline)
    return [record.__dict__["fields"] for record in caplog.records]


FAILED = replace(STREAMED, outcome=Outcome.FAILED, error_type=ErrorType.RESET)
CANCELLED = replace(STREAMED, outcome=Outcome.CANCELLED)


@pytest.mark.parametrize(
    ("timeline", "flags", "lines"),
    [
        (STREAMED, {}, 0),
        (CANCELLED, {}, 0),
        (FAILED, {}, 1),
        (FAILED, {"access_log": "off"}, 0),
        (STREAMED, {"access_log": "all"}, 1),
        (STREAMED, {"slow_threshold": "500ms"}, 1),
        (STREAMED, {"slow_threshold": "501ms"}, 0),
        (STREAMED, {"slow_threshold": "0"}, 0),
        (replace(STREAMED, first_token=None, last_token=None), {"slow_threshold": "4s"}, 1),
    ],
)
def test_the_access_log_has_what_it_is_asked_for(
    caplog: pytest.LogCaptureFixture, timeline: Timeline, flags: dict[str, str], lines: int
) -> None:
    assert len(logged(caplog, timeline, **flags)) == lines


def test_a_line_says_where_the_time_went(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = logged(caplog, replace(FAILED, identity=who(model="bad\nname")))
    assert line["trace_id"] == STREAMED.identity.trace_id
    assert (line["outcome"], line["error_type"], line["model"]) == ("failed", "reset", "bad\\nname")
    assert (line["queueing"], line["queueing_source"], line["prefill"]) == (0.125, "derived", 0.375)
    assert (line["input_tokens"], line["output_tokens"]) == (96, 129)
