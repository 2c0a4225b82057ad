"""The exposition as a real Prometheus takes it, and as promtool judges it."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from samples import WHO, streamed
from support.prometheus import PROMTOOL, Prometheus

from exporter import catalog
from exporter.core.tally import Series, Tally
from exporter.sinks.prometheus import PrometheusSink

WALL = 1_700_000_000.25
MODEL = 'quo"te\\back'
GAUGES: dict[Series, float] = {(catalog.ENGINE_UP, ()): 1.0}


def busy() -> PrometheusSink:
    made = PrometheusSink(("tenant",))
    for number in range(3):
        made.record(streamed(MODEL, "blue", first_token=100.5 + number), WALL + number)
    pulse = Tally()
    pulse.observe_all(catalog.ITL, ("chat", MODEL, "vllm", "blue"), catalog.grid(catalog.ITL), [0.02] * 9)
    pulse.inc(catalog.CONFLICTS, ("prefill_negative",))
    made.merge(pulse)
    return made


@contextmanager
def serving(body: bytes, content_type: str) -> Iterator[str]:
    """A target that always answers the same."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_promtool_finds_nothing_to_say() -> None:
    output = busy().render(GAUGES, openmetrics=False)
    found = subprocess.run([PROMTOOL, "check", "metrics"], input=output, capture_output=True, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_real_prometheus_takes_every_number(openmetrics: bool) -> None:
    body = busy().render(GAUGES, openmetrics=openmetrics)
    kind = CONTENT_TYPE_LATEST if openmetrics else CONTENT_TYPE_PLAIN_0_0_4
    with serving(body, kind) as target, Prometheus(target) as prometheus:
        prometheus.wait_for("inference_engine_up")
        labels = {"gen_ai_request_model": MODEL, "tenant": "blue"}
        ((series, count),) = prometheus.query(f"{catalog.TTFT}_count")
        assert series.items() >= labels.items()
        assert count == 3
        assert prometheus.value(f'{catalog.TTFT}_bucket{{le="1.5"}}') == 2
        assert prometheus.value(f"{catalog.TTFT}_sum") == 4.5
        assert prometheus.value(f"{catalog.ITL}_count") == 9
        assert prometheus.value(f'{catalog.TOKENS}{{gen_ai_token_type="output"}}') == 387
        assert prometheus.value(catalog.CONFLICTS) == 1
        assert prometheus.value("process_resident_memory_bytes{}") is not None
        exemplars = prometheus.exemplars(f"{catalog.TTFT}_bucket")
        traces = {str(one["labels"]) for one in exemplars}
        assert traces == ({str({"trace_id": WHO.trace_id})} if openmetrics else set())
