"""SIGKILL to any of the sidecar's processes, under load: what breaks, what does not, and each request counts once."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException

import pytest
from support.exposition import Page
from support.load import Load
from support.otlp import OtlpReceiver
from support.raw import CHAT, RawClient, chat
from support.scripted_engine import ScriptedEngine
from support.sidecar import Sidecar
from support.waiting import until
from support.watching import Scraper, counted, opened, saved, totals

from exporter import catalog


def script(number: int) -> dict[str, object]:
    return {"first_after": 0.02, "gap": 0.01, "tokens": 5 + number % 40}


def more(load: Load, count: int) -> None:
    """Wait until so many more requests were answered."""
    reached = len(load.tries) + count
    until(lambda: len(load.tries) >= reached, f"{count} more requests")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_observer(sidecar: Sidecar) -> None:
    """And wait until the next one answers."""
    (before,) = sidecar.children("observer")
    kill(before)
    until(lambda: sidecar.children("observer") not in ([before], []), "a new observer")
    until(lambda: _scraped(sidecar), "a scrape of the new observer")


def _scraped(sidecar: Sidecar) -> bool:
    with suppress(OSError, HTTPException):
        return bool(sidecar.metrics().samples)
    return False


def requests_counted(sidecar: Sidecar, count: int, outcome: str, error_type: str = "") -> Page:
    """The scrape that has them all, and not one more."""
    labels = {"outcome": outcome, "error_type": error_type}
    page = sidecar.wait_metric(catalog.REQUESTS, count, outcome=outcome, error_type=error_type)
    assert page.get(catalog.REQUESTS, **labels) == count
    return page


def test_killing_the_observer_costs_no_request_and_no_count(scripted_engine: ScriptedEngine) -> None:
    with Sidecar(scripted_engine.url, "--workers", "2") as sidecar, Scraper(sidecar) as scraper:
        with Load(sidecar.port, 12, script) as load:
            for _ in range(2):
                more(load, 50)
                kill_observer(sidecar)
            more(load, 50)
        assert load.errors == []
        page = requests_counted(sidecar, len(load.tries), outcome="completed")
        assert page.get(catalog.REQUESTS) == len(load.tries)
        assert page.get(f"{catalog.TTFT}_count") == len(load.tries)
        assert page.get(f"{catalog.LATENCY}_count") == len(load.tries)
        tokens = sum(len(one.tokens) for one in scripted_engine.exchanges(CHAT))
        assert page.get(catalog.TOKENS, gen_ai_token_type="output") == tokens
        sidecar.wait_metric(f"{catalog.ITL}_count", tokens - len(load.tries))
        assert sidecar.metrics().get(f"{catalog.ITL}_count") == tokens - len(load.tries)
        assert page.get(catalog.RESTARTS, process="observer") == 2
        assert not page.get(catalog.DEGRADED)
        assert not page.get(catalog.CHANNEL_ERRORS)
    assert len(scraper.pages) > 20
    assert scraper.backwards() == []
    assert scraper.refused == []


def test_spans_that_die_with_the_observer_are_counted(scripted_engine: ScriptedEngine, otlp: OtlpReceiver) -> None:
    with (
        Sidecar(scripted_engine.url, "--workers", "2", env=otlp.environment) as sidecar,
        Scraper(sidecar) as scraper,
        Load(sidecar.port, 12, script) as load,
    ):
        for _ in range(2):
            more(load, 25)
            kill_observer(sidecar)
        more(load, 25)
        load.stop()
        wanted = 4 * len(load.tries)

        def all_known() -> bool:
            dropped = sidecar.metrics().get(catalog.SPANS_DROPPED) or 0
            return len({span.span_id for span in otlp.spans}) + dropped >= wanted

        until(all_known, "every span received or counted as dropped", every=0.1)
        assert load.errors == []
        servers = [span for span in otlp.spans if span.kind == "server"]
        assert len({span.trace_id for span in servers}) <= len(load.tries)
    assert scraper.backwards() == []


def test_an_observer_that_hangs_costs_no_request_and_no_count(scripted_engine: ScriptedEngine) -> None:
    with Sidecar(scripted_engine.url, "--workers", "2") as sidecar:
        (observer,) = sidecar.children("observer")
        os.kill(observer, signal.SIGSTOP)
        try:
            with Load(sidecar.port, 12, script) as load:
                more(load, 100)
        finally:
            os.kill(observer, signal.SIGCONT)
        assert load.errors == []
        page = requests_counted(sidecar, len(load.tries), outcome="completed")
        assert not page.get(catalog.DEGRADED)


def test_an_observer_killed_during_a_drain_still_tells_everything(
    scripted_engine: ScriptedEngine, otlp: OtlpReceiver
) -> None:
    long: dict[str, object] = {"gap": 0.02, "tokens": 200}
    with Sidecar(scripted_engine.url, env=otlp.environment) as sidecar:
        streams = Streams(sidecar, 8, long)
        sidecar.wait_metric(catalog.ACTIVE, 8, phase="decode")
        sidecar.process.signal(signal.SIGTERM)
        kill_observer(sidecar)
        assert streams.finish() == (8, 0)
        assert sidecar.process.wait_exit() == 0
    told = [span.attributes["gen_ai.usage.output_tokens"] for span in otlp.spans if span.kind == "server"]
    assert told == [200] * 8


@pytest.mark.parametrize("safe", [False, True], ids=["before a checkpoint", "after a checkpoint"])
def test_an_observer_killed_twice_while_nobody_talks_forgets_nothing(
    scripted_engine: ScriptedEngine, safe: bool
) -> None:
    with Sidecar(scripted_engine.url) as sidecar, Scraper(sidecar) as scraper:
        for _ in range(3):
            with RawClient(sidecar.port) as client:
                client.post(CHAT, chat({"tokens": 4}))
                assert client.answer().complete
        before = totals(sidecar.wait_metric(f"{catalog.ITL}_count", 9))
        if safe:
            until(lambda: counted(saved(sidecar), catalog.ITL) == 9, "a checkpoint with everything")
        kill_observer(sidecar)
        kill_observer(sidecar)
        after = totals(sidecar.metrics())
        restarts = {key for key in before if key[0] == catalog.RESTARTS}
        assert {key: value for key, value in after.items() if key not in restarts} == {
            key: value for key, value in before.items() if key not in restarts
        }
    assert scraper.backwards() == []


class Streams:
    """Long streams, open at the same time."""

    def __init__(self, sidecar: Sidecar, count: int, long: dict[str, object]) -> None:
        self.clients = [RawClient(sidecar.port) for _ in range(count)]
        for client in self.clients:
            client.post(CHAT, chat(long))
        for client in self.clients:
            while not (client.answers and client.answers[0].moments):
                assert client.read()

    def finish(self) -> tuple[int, int]:
        """How many were answered completely, and how many were cut."""
        good = 0
        for client in self.clients:
            with suppress(ConnectionError), client:
                good += client.answer().complete
        return good, len(self.clients) - good


def on_each_relay(sidecar: Sidecar, count: int, long: dict[str, object]) -> dict[int, Streams]:
    """So many streams on each relay, by its pid: the others stand still while they are opened."""
    relays = sidecar.children("relay")
    opened = {}
    for relay in relays:
        others = [other for other in relays if other != relay]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            opened[relay] = Streams(sidecar, count, long)
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
    return opened


def test_killing_one_of_two_relays_breaks_its_own_streams_alone(scripted_engine: ScriptedEngine) -> None:
    long: dict[str, object] = {"gap": 0.02, "tokens": 100}
    with Sidecar(scripted_engine.url, "--workers", "2") as sidecar, Scraper(sidecar) as scraper:
        (victim, its), (_, others) = on_each_relay(sidecar, 10, long).items()
        sidecar.wait_metric(catalog.ACTIVE, 20, phase="decode")
        kill(victim)
        assert its.finish() == (0, 10)
        assert others.finish() == (10, 0)
        requests_counted(sidecar, 10, outcome="failed", error_type="relay_died")
        page = requests_counted(sidecar, 10, outcome="completed")
        assert page.get(catalog.REQUESTS) == 20
        until(lambda: len(sidecar.children("relay")) == 2, "a new relay")
        with Load(sidecar.port, 6, script) as load:
            until(lambda: len(load.tries) >= 30, "load")
        assert load.errors == []
        requests_counted(sidecar, 10 + len(load.tries), outcome="completed")
        page = until(lambda: idle(sidecar), "no active request")
        assert page.get(catalog.REQUESTS) == 20 + len(load.tries)
        assert page.get(catalog.RESTARTS, process="relay") == 1
        scripted_engine.wait(lambda all_: all(one.over for one in all_))
    assert scraper.backwards() == []


def test_a_request_that_comes_while_the_only_relay_is_dead_waits_for_the_next(scripted_engine: ScriptedEngine) -> None:
    with Sidecar(scripted_engine.url) as sidecar:
        for turn in (1, 2):
            (relay,) = sidecar.children("relay")
            kill(relay)
            with RawClient(sidecar.port) as client:
                client.post(CHAT, chat({"tokens": 3}))
                assert client.answer().complete
            page = requests_counted(sidecar, turn, outcome="completed")
        assert page.get(catalog.RESTARTS, process="relay") == 2


def idle(sidecar: Sidecar) -> Page | None:
    """A scrape without active requests."""
    page = sidecar.metrics()
    return page if page.get(catalog.ACTIVE) == 0 else None


def test_relay_and_observer_killed_together_still_count_once(scripted_engine: ScriptedEngine) -> None:
    long: dict[str, object] = {"gap": 0.02, "tokens": 100}
    with Sidecar(scripted_engine.url, "--workers", "2") as sidecar:
        (victim, its), (_, others) = on_each_relay(sidecar, 6, long).items()
        sidecar.wait_metric(catalog.ACTIVE, 12, phase="decode")
        until(lambda: opened(saved(sidecar)) == 12, "all of them in the checkpoint")
        (observer,) = sidecar.children("observer")
        kill(victim)
        kill(observer)
        assert (its.finish(), others.finish()) == ((0, 6), (6, 0))
        until(lambda: _scraped(sidecar), "a scrape of the new observer")
        requests_counted(sidecar, 6, outcome="failed", error_type="relay_died")
        requests_counted(sidecar, 6, outcome="completed")


def children(sidecar: Sidecar) -> Iterator[int]:
    yield from sidecar.children("relay")
    yield from sidecar.children("observer")


def test_children_of_a_killed_supervisor_are_gone_within_a_second(scripted_engine: ScriptedEngine) -> None:
    with Sidecar(scripted_engine.url, "--workers", "2") as sidecar:
        streams = Streams(sidecar, 4, {"gap": 0.02, "tokens": 2000})
        assert len(list(children(sidecar))) == 3
        began = time.monotonic()
        kill(sidecar.pid)
        until(lambda: not list(children(sidecar)), "no children", within=1.0)
        assert time.monotonic() - began < 1.0
        assert streams.finish() == (0, 4)
    scripted_engine.wait(lambda all_: all(one.disconnected for one in all_))
