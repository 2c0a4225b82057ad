"""The real observer process: scraped, killed, restarted; the test plays supervisor and relays."""

import array
import asyncio
import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request

import msgspec
import pytest
from msgspec.structs import replace
from samples import streamed, who
from support.observing import FACTS, PlayedRelay, PlayedSupervisor, configuration
from support.otlp import OtlpReceiver
from support.waiting import until

from exporter import catalog, control
from exporter.core.recorder import LivePhase
from exporter.observer import memory, process
from exporter.observer.checkpoint import Checkpoint, FdFile
from exporter.records import Ended, Live, Opened, Pulse

MODEL = "llama-3-8b"


def ended(number: int, **changes: object) -> Ended:
    timeline = streamed(**changes)  # type: ignore[arg-type]  # the fields' own types
    return Ended(0, replace(timeline, identity=replace(timeline.identity, span_id=f"{number:016x}")))


def pulse(**changes: object) -> Pulse:
    empty: dict[str, object] = {"live": [], "opened": [], "closed": [], "counters": [], "histograms": []}
    return Pulse(0, **({"at": 100.0} | empty | changes))  # type: ignore[arg-type]  # as above


def get(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    named = {name.replace("_", "-"): headers[name] for name in headers}
    request = urllib.request.Request(url, headers=named)  # noqa: S310 - loopback only
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback only
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read(), dict(refused.headers)


def test_totals_survive_kill_minus_nine_exactly_once() -> None:
    relay = PlayedRelay()
    with PlayedSupervisor() as supervisor:
        supervisor.start([relay])
        for number in range(1, 31):
            relay.send(ended(number))
        until(lambda: relay.acknowledged == 30, "30 acknowledged")
        for number in range(31, 41):
            relay.send(ended(number))  # folded perhaps, but hardly ever acknowledged
        supervisor.kill()
        for number in range(41, 51):
            relay.send(ended(number))  # nobody is there
        supervisor.start([relay])
        assert supervisor.page().get(catalog.REQUESTS, outcome="completed") == 50
        assert supervisor.page().get(catalog.TOKENS, gen_ai_token_type="output") == 50 * 129
        assert supervisor.page().get(f"{catalog.TTFT}_count") == 50
        until(lambda: relay.acknowledged == 50, "50 acknowledged")


def test_no_scrape_sees_a_counter_go_back() -> None:
    relay = PlayedRelay()
    with PlayedSupervisor() as supervisor:
        supervisor.start([relay])
        for number in range(1, 11):
            relay.send(ended(number))
        supervisor.wait_metric(10, catalog.REQUESTS)
        supervisor.kill()
        supervisor.start([relay], connect=False)
        seen: list[float | None] = []
        scrape = threading.Thread(target=lambda: seen.append(supervisor.page().get(catalog.REQUESTS)))
        scrape.start()
        supervisor.connect(relay)
        scrape.join(30)
        assert seen == [10]


def test_a_scrape_is_refused_while_a_relay_has_not_caught_up() -> None:
    relay = PlayedRelay()
    with PlayedSupervisor() as supervisor:
        supervisor.start([relay], connect=False)
        status, body, headers = get(f"{supervisor.url}/metrics")
        assert (status, headers["retry-after"]) == (503, "1")
        assert b"waits for the relays" in body
        supervisor.tell(control.RelayGone(*relay.key))  # one that died meanwhile is not waited for
        until(lambda: get(f"{supervisor.url}/metrics")[0] == 200, "metrics without the dead relay")


def test_what_a_dead_relay_had_open_has_failed_once() -> None:
    relay, next_life = PlayedRelay(), PlayedRelay(boot="second")
    with PlayedSupervisor() as supervisor:
        supervisor.start([relay])
        relay.send(ended(1))
        relay.send(pulse(opened=[Opened(who(span_id="00000000000000aa"), 99.0)]))
        relay.send(ended(2))
        relay.die()
        supervisor.tell(control.RelayGone(*relay.key))
        supervisor.connect(next_life)
        next_life.send(ended(3))
        supervisor.wait_metric(3, catalog.REQUESTS, outcome="completed")
        supervisor.wait_metric(1, catalog.REQUESTS, error_type="relay_died")
        until(lambda: next_life.acknowledged == 1, "the new boot acknowledged from 1")
        supervisor.kill()
        supervisor.start([next_life])
        assert supervisor.page().get(catalog.REQUESTS, error_type="relay_died") == 1


def test_a_relay_that_died_while_nobody_watched_is_ended_by_the_next_observer() -> None:
    relay = PlayedRelay()
    with PlayedSupervisor() as supervisor:
        supervisor.start([relay])
        relay.send(pulse(opened=[Opened(who(), 99.0)]))
        until(lambda: relay.acknowledged == 1, "the pulse acknowledged")
        supervisor.kill()
        supervisor.start([])
        supervisor.wait_metric(1, catalog.REQUESTS, outcome="failed", error_type="relay_died")


def test_garbage_closes_a_channel_and_is_counted() -> None:
    relay = PlayedRelay()
    with PlayedSupervisor() as supervisor:
        supervisor.start([relay])
        relay.send(ended(1))
        supervisor.wait_metric(1, catalog.REQUESTS)
        relay.raw(b"\xff\xff\xff\xff no frame")
        supervisor.wait_metric(1, catalog.CHANNEL_ERRORS, reason="garbage")
        assert supervisor.page().get(catalog.REQUESTS) == 1


def test_gauges_and_pages() -> None:
    relay = PlayedRelay()
    base = ("chat", MODEL, "vllm")
    with PlayedSupervisor() as supervisor:
        supervisor.start([relay])
        relay.send(ended(1))
        relay.send(pulse(live=[Live(base, {LivePhase.DECODE.value: (2, 90.0)}, 100.0)]))
        supervisor.wait_metric(2, catalog.ACTIVE, phase="decode")
        page = supervisor.page()
        assert page.get(catalog.ACTIVE, phase="queueing") == 0
        assert page.get(catalog.ENGINE_UP) == 1
        assert page.get(catalog.RESTARTS, process="relay") == 1
        assert page.get(catalog.BUILD) == 1
        assert page.get(catalog.LAST_TOKEN) == pytest.approx(relay.zero + 104.5, abs=1)
        for path in ("/-/healthy", "/-/ready"):
            assert get(supervisor.url + path)[0] == 200
        assert get(f"{supervisor.url}/-/drained")[0] == 503
        told = json.loads(get(f"{supervisor.url}/api/status")[1])
        assert told["rows"][0]["requests"] == {"completed": 1}
        assert list(told["relays"]) == ["0"]
        assert MODEL.encode() in get(f"{supervisor.url}/")[1]
        supervisor.tell(replace_facts(ready=False))
        until(lambda: get(f"{supervisor.url}/-/ready")[0] == 503, "not ready any more")


def replace_facts(**changes: bool) -> control.Facts:
    return control.Facts(**({field: getattr(FACTS, field) for field in FACTS.__struct_fields__} | changes))


def test_finish_exports_what_waits_and_exits_with_0() -> None:
    relay = PlayedRelay()
    with OtlpReceiver() as receiver, PlayedSupervisor(env={**receiver.environment, "OTEL_SDK_DISABLED": "false"}) as it:
        it.start([relay])
        relay.send(ended(1))
        it.wait_metric(1, catalog.REQUESTS)
        relay.die()
        it.tell(control.RelayGone(*relay.key))
        it.tell(control.Finish())
        it.wait_for(control.Finished)
        assert it.ended() == 0
        assert {span.name for span in receiver.spans} == {f"chat {MODEL}", "queueing", "prefill", "decode"}


def test_a_collector_that_is_away_costs_spans_and_one_line() -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "false",
            "OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}  # fmt: skip
    relay = PlayedRelay()
    with PlayedSupervisor(env=away) as supervisor:
        supervisor.start([relay])
        relay.send(ended(1))
        supervisor.wait_metric(4, catalog.SPANS_DROPPED)
        relay.send(ended(2))
        supervisor.wait_metric(8, catalog.SPANS_DROPPED)
        supervisor.tell(control.Finish())
        supervisor.wait_for(control.Finished)
        assert supervisor.ended() == 0
        assert supervisor.errors.decode().count("level=error") + supervisor.errors.decode().count("level=warning") == 1


def test_it_ends_with_its_supervisor() -> None:
    with PlayedSupervisor() as supervisor:
        supervisor.start()
        supervisor.hang_up()
        assert supervisor.ended() == 1


def test_terminal_signals_are_the_supervisors() -> None:
    with PlayedSupervisor() as supervisor:
        supervisor.start()
        assert supervisor._child is not None
        supervisor._child.send_signal(signal.SIGINT)
        supervisor._child.send_signal(signal.SIGTERM)
        assert get(f"{supervisor.url}/-/healthy")[0] == 200


def test_a_web_config_that_cannot_be_used_is_said_and_ends_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("web") / "web.yml"
    file.write_text("basic_auth_user: {}\n")
    with PlayedSupervisor(configuration(**{"web.config.file": str(file)})) as supervisor:
        supervisor.start(ready=False)
        assert supervisor.ended() == 78
        assert "'basic_auth_user' is not known, accepted: basic_auth_users, tls_server_config" in (
            supervisor.errors.decode()
        )


def test_the_access_log_has_bad_requests_only() -> None:
    relay = PlayedRelay()
    with PlayedSupervisor() as supervisor:
        supervisor.start([relay])
        relay.send(ended(1))
        relay.send(pulse(opened=[Opened(who(span_id="00000000000000aa", trace_id="f" * 32), 99.0)]))
        relay.die()
        supervisor.tell(control.RelayGone(*relay.key))
        supervisor.wait_metric(1, catalog.REQUESTS, error_type="relay_died")
        supervisor.kill()
        lines = [line for line in supervisor.errors.decode().splitlines() if "msg=request" in line]
        assert len(lines) == 1
        assert f"trace_id={'f' * 32}" in lines[0]
        assert "error_type=relay_died" in lines[0]


def test_too_large_it_makes_a_checkpoint_and_asks_to_be_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GRACE", 0.0)
    monkeypatch.setattr(memory, "resident", lambda: 2**50)
    ours, theirs = control.pair()
    memfd = os.memfd_create("checkpoint")
    with ours, socket.create_server(("127.0.0.1", 0)) as web:
        start = control.StartObserver(configuration(), [])
        rights = array.array("i", [web.fileno(), memfd])
        ours.sendmsg([msgspec.msgpack.encode(start)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        assert asyncio.run(process.run(theirs)) == process.RESTART
    assert Checkpoint(FdFile(memfd)).take() is not None
    os.close(memfd)
