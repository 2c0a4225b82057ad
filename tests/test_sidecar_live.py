"""What the web port tells while requests run: gauges that move, scrapes in every format, readiness that follows."""

import gzip
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client.samples import Sample
from support.exposition import OPENMETRICS, Page
from support.load import Load
from support.otlp import OtlpReceiver
from support.processes import http_answers
from support.prometheus import Prometheus
from support.raw import CHAT, RawClient, chat
from support.scripted_engine import ScriptedEngine
from support.sidecar import Sidecar
from support.waiting import until

from exporter import catalog

OUTPUT = {"gen_ai_token_type": "output"}


@pytest.fixture
def sidecar(scripted_engine: ScriptedEngine) -> Iterator[Sidecar]:
    with Sidecar(scripted_engine.url) as running:
        yield running


def number(page: Page, name: str, **labels: str) -> float:
    value = page.get(name, **labels)
    assert value is not None, f"{name}{labels} is not there"
    return value


def test_a_running_stream_is_visible_before_it_ends(sidecar: Sidecar) -> None:
    with RawClient(sidecar.port) as client:
        client.post(CHAT, chat({"gap": 0.02, "tokens": 5000}))
        before = sidecar.wait_metric(catalog.TOKENS, 20, **OUTPUT)  # type: ignore[arg-type]
        after = sidecar.wait_metric(catalog.TOKENS, number(before, catalog.TOKENS, **OUTPUT) + 20, **OUTPUT)  # type: ignore[arg-type]
        for page in (before, after):
            assert number(page, catalog.ACTIVE, phase="decode") == 1
            assert number(page, catalog.ACTIVE) == 1
            assert number(page, f"{catalog.TTFT}_count") == 1
            # all of it is younger than the window of ten seconds
            assert number(page, catalog.TPS) * 10 == pytest.approx(number(page, catalog.TOKENS, **OUTPUT))
            assert number(page, f"{catalog.ITL}_count") == number(page, catalog.TOKENS, **OUTPUT) - 1
            assert page.get(catalog.REQUESTS) is None
        assert number(after, catalog.OLDEST, phase="decode") > number(before, catalog.OLDEST, phase="decode")
        assert number(after, catalog.LAST_TOKEN) > number(before, catalog.LAST_TOKEN)
        assert number(after, catalog.LAST_TOKEN) == pytest.approx(time.time(), abs=5)  # noqa: TID251 - Unix time is told
    page = sidecar.wait_metric(catalog.REQUESTS, 1, outcome="cancelled")
    assert number(page, f"{catalog.TTFT}_count") == 1
    assert until(lambda: _gone(sidecar), "no active request").get(catalog.OLDEST) is None


def _gone(sidecar: Sidecar) -> Page | None:
    page = sidecar.metrics()
    return page if page.get(catalog.ACTIVE) == 0 else None


def test_a_request_without_a_token_ages_visibly(sidecar: Sidecar) -> None:
    with RawClient(sidecar.port) as client:
        client.post(CHAT, chat({"hang": "headers"}))
        before = sidecar.wait_metric(catalog.OLDEST, 0.01, phase="waiting")
        after = sidecar.wait_metric(catalog.OLDEST, 1.0, phase="waiting")
        assert number(before, catalog.ACTIVE, phase="waiting") == number(after, catalog.ACTIVE) == 1
        assert after.get(f"{catalog.TTFT}_count") is None
    sidecar.wait_metric(catalog.REQUESTS, 1, outcome="cancelled")


def test_an_exemplar_is_a_request_that_fell_into_its_bucket(
    scripted_engine: ScriptedEngine, otlp: OtlpReceiver
) -> None:
    delays = [0.0, 0.03, 0.06, 0.12, 0.35]
    with Sidecar(scripted_engine.url, env=otlp.environment) as sidecar:
        for delay in delays:
            with RawClient(sidecar.port) as client:
                client.post(CHAT, chat({"first_after": delay, "tokens": 3, "gap": 0.01}))
                assert client.answer().complete
        spans = otlp.wait_for(4 * len(delays))
        sidecar.wait_metric(catalog.REQUESTS, len(delays))
        page = sidecar.metrics(openmetrics=True)
    ttft = {one.trace_id: one.attributes["gen_ai.latency.time_to_first_token"] for one in spans if one.kind == "server"}
    buckets = page.all(f"{catalog.TTFT}_bucket")
    seen = [_check(low, high, ttft) for low, high in zip([None, *buckets], buckets, strict=False) if high.exemplar]
    assert set(seen) == set(ttft)


def _check(low: Sample | None, bucket: Sample, ttft: dict[str, object]) -> str:
    """The trace id of a bucket's exemplar, whose TTFT lies in the bucket and is the exemplar's value."""
    assert bucket.exemplar is not None
    trace_id, value = bucket.exemplar.labels["trace_id"], bucket.exemplar.value
    assert value == pytest.approx(ttft[trace_id])
    assert (float(low.labels["le"]) if low else 0.0) < value <= float(bucket.labels["le"])
    assert bucket.exemplar.timestamp is not None
    assert float(bucket.exemplar.timestamp) == pytest.approx(time.time(), abs=60)  # noqa: TID251 - Unix time is told
    return trace_id


def test_every_format_tells_the_same(sidecar: Sidecar) -> None:
    with RawClient(sidecar.port) as client:
        client.post(CHAT, chat({"tokens": 4}))
        assert client.answer().complete
    sidecar.wait_metric(f"{catalog.ITL}_count", 3)
    classic, openmetrics = sidecar.metrics(), sidecar.metrics(openmetrics=True)
    request = urllib.request.Request(  # noqa: S310 loopback only
        f"{sidecar.web}/metrics", headers={"Accept": OPENMETRICS, "Accept-Encoding": "gzip"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 loopback only
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        zipped = Page.parse(gzip.decompress(answer.read()).decode(), openmetrics=True)
    for name in (f"{catalog.TTFT}_bucket", f"{catalog.ITL}_sum", catalog.REQUESTS, catalog.TOKENS, catalog.ACTIVE):
        told = [[(one.labels, one.value) for one in page.all(name)] for page in (classic, openmetrics, zipped)]
        assert told[0]
        assert told[0] == told[1] == told[2]


def test_a_real_prometheus_knows_the_quantile(scripted_engine: ScriptedEngine, otlp: OtlpReceiver) -> None:
    script: dict[str, object] = {"first_after": 0.11, "tokens": 4, "gap": 0.01}
    quantile = f"histogram_quantile(0.5, sum by (le) (rate({catalog.TTFT}_bucket[5s])))"
    with (
        Sidecar(scripted_engine.url, env=otlp.environment) as sidecar,
        Prometheus(f"127.0.0.1:{sidecar.web_port}") as prometheus,
        Load(sidecar.port, 4, lambda _: script) as load,
    ):
        assert 0.1 < prometheus.wait_for(quantile, lambda value: value > 0) <= 0.15
        assert load.stop()
        assert load.errors == []
        prometheus.wait_for(f"sum({catalog.REQUESTS})", lambda value: value == len(load.tries))
        (target,) = prometheus.targets()
        assert (target["health"], target["lastError"]) == ("up", "")
        exemplar = prometheus.exemplars(f"{catalog.TTFT}_bucket")[0]
        assert exemplar["labels"]["trace_id"] in {span.trace_id for span in otlp.spans}  # type: ignore[index]


def test_scrapes_are_right_while_256_streams_are_open(sidecar: Sidecar) -> None:
    with ExitStack() as open_clients:
        clients = [open_clients.enter_context(RawClient(sidecar.port)) for _ in range(256)]
        for client in clients:
            client.post(CHAT, chat({"gap": 0.2, "tokens": 20}))
        sidecar.wait_metric(catalog.ACTIVE, 256, phase="decode")
        tokens, slowest = 0.0, 0.0
        for _ in range(20):
            began = time.monotonic()
            page = sidecar.metrics()
            slowest = max(slowest, time.monotonic() - began)
            assert number(page, catalog.ACTIVE) == 256
            assert number(page, f"{catalog.TTFT}_count") == 256
            assert number(page, catalog.TOKENS, **OUTPUT) >= tokens
            tokens = number(page, catalog.TOKENS, **OUTPUT)
        assert slowest < 1.0
        assert all(client.answer().complete for client in clients)
    page = sidecar.wait_metric(catalog.REQUESTS, 256, outcome="completed")
    assert number(page, catalog.TOKENS, **OUTPUT) == 256 * 20


def test_readiness_follows_the_engine(scripted_engine: ScriptedEngine, sidecar: Sidecar) -> None:
    scripted_engine.stop_listening()
    with RawClient(sidecar.port) as client:
        client.post(CHAT, chat({"tokens": 4}))
        answer = client.answer()
        assert (answer.status, answer.error["type"]) == (502, "upstream_error")
    sidecar.wait_metric(catalog.REQUESTS, 1, outcome="failed", error_type="connect", http_response_status_code="502")
    until(lambda: http_answers(f"{sidecar.health}/-/ready", 503), "not ready without an engine")
    until(lambda: sidecar.metrics().get(catalog.ENGINE_UP) == 0, "the engine told as gone")
    assert http_answers(f"{sidecar.web}/-/ready", 503)
    assert http_answers(f"{sidecar.health}/-/healthy")
    scripted_engine.listen_again()
    until(lambda: http_answers(f"{sidecar.health}/-/ready"), "ready again")
    until(lambda: sidecar.metrics().get(catalog.ENGINE_UP) == 1, "the engine told as back")
    with RawClient(sidecar.port) as client:
        client.post(CHAT, chat({"tokens": 4}))
        assert client.answer().complete
