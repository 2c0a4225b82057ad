"""The end of a sidecar under load: what is still accepted, what finishes, what is cut, and that all of it is told."""

import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from support.otlp import OtlpReceiver, Span
from support.processes import REPOSITORY, http_answers, tcp_accepts
from support.raw import CHAT, Answer, RawClient, chat
from support.scripted_engine import ScriptedEngine
from support.sidecar import COMMAND, Sidecar
from support.waiting import until

from exporter import catalog

LONG: dict[str, object] = {"gap": 0.05, "tokens": 60}
SHORTER: dict[str, object] = {"gap": 0.05, "tokens": 30}
ENDLESS: dict[str, object] = {"gap": 0.05, "tokens": 100_000}


class Client:
    """One request in a thread of its own; `answer` is what came of it."""

    def __init__(self, port: int, script: dict[str, object]) -> None:
        self._client = RawClient(port)
        self._client.post(CHAT, chat(script))
        while not (self._client.answers and self._client.answers[0].moments):
            assert self._client.read()
        self.cut = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def answer(self) -> Answer:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self._client.answers[0]

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def _read(self) -> None:
        with self._client:
            try:
                self._client.answer()
            except ConnectionError:
                self.cut = True


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 loopback only
            return int(answer.status), answer.read().decode().strip()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode().strip()


def ask(port: int) -> Answer:
    with RawClient(port) as client:
        client.post(CHAT, chat({"tokens": 3}))
        return client.answer()


def servers(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.kind == "server"]


@pytest.fixture
def no_spans_lost(otlp: OtlpReceiver) -> Iterator[OtlpReceiver]:
    yield otlp
    for server in servers(otlp.spans):
        phases = [span.name for span in otlp.spans if span.parent_id == server.span_id]
        assert sorted(phases) == ["decode", "prefill", "queueing"]


def test_a_drain_loses_nothing(scripted_engine: ScriptedEngine, no_spans_lost: OtlpReceiver) -> None:
    flags = ("--drain-delay", "1s", "--drain-timeout", "20s", "--workers", "2")
    with Sidecar(scripted_engine.url, *flags, env=no_spans_lost.environment) as sidecar:
        streams = [Client(sidecar.port, LONG) for _ in range(8)]
        sidecar.process.signal(signal.SIGTERM)
        until(lambda: get(f"{sidecar.health}/-/ready") == (503, "draining"), "not ready", within=0.5)
        assert get(f"{sidecar.health}/-/healthy")[0] == 200
        late = ask(sidecar.port)
        assert (late.status, late.complete, late.header("connection")) == (200, True, "close")
        until(lambda: not tcp_accepts(sidecar.port), "no new connections")
        assert not any(stream.done for stream in streams)
        while not any(stream.done for stream in streams):
            assert sidecar.metrics().get(catalog.ENGINE_UP) == 1
        assert [(one.answer.status, one.answer.complete, one.cut) for one in streams] == [(200, True, False)] * 8
        assert sidecar.process.wait_exit() == 0
    done = servers(no_spans_lost.spans)
    assert [span.attributes["inference.outcome"] for span in done] == ["completed"] * 9
    assert sorted(span.attributes["gen_ai.usage.output_tokens"] for span in done) == [3, *[60] * 8]  # type: ignore[type-var]


def test_an_idle_sidecar_ends_with_its_delay(scripted_engine: ScriptedEngine) -> None:
    with Sidecar(scripted_engine.url, "--drain-delay", "0", "--drain-timeout", "60s") as sidecar:
        sidecar.process.signal(signal.SIGTERM)
        assert sidecar.process.wait_exit(10) == 0


def test_a_stream_longer_than_the_timeout_is_cut_and_told(
    scripted_engine: ScriptedEngine, no_spans_lost: OtlpReceiver
) -> None:
    flags = ("--drain-delay", "0", "--drain-timeout", "1s")
    with Sidecar(scripted_engine.url, *flags, env=no_spans_lost.environment) as sidecar:
        short, endless = Client(sidecar.port, {"gap": 0.05, "tokens": 10}), Client(sidecar.port, ENDLESS)
        sidecar.process.signal(signal.SIGTERM)
        assert short.answer.complete
        assert not endless.answer.complete
        assert sidecar.process.wait_exit() == 0
        assert "aborting what still runs" in sidecar.output
    finished, cut = sorted(servers(no_spans_lost.spans), key=lambda span: span.end_ns)
    assert finished.attributes["inference.outcome"] == "completed"
    assert (cut.attributes["inference.outcome"], cut.attributes["error.type"]) == ("failed", "reset")
    assert cut.status == "error"
    (cut_by_us,) = [one for one in scripted_engine.exchanges(CHAT) if one.disconnected is not None]
    assert cut.attributes["gen_ai.usage.output_tokens"] == pytest.approx(len(cut_by_us.tokens), abs=2)


def test_a_cut_stream_is_counted_before_the_end(scripted_engine: ScriptedEngine) -> None:
    """After /-/drained nothing is in flight, and the sidecar that was only told to drain goes on answering scrapes."""
    with Sidecar(scripted_engine.url, "--drain-timeout", "1s") as sidecar:
        endless = Client(sidecar.port, ENDLESS)
        assert drain(sidecar) == 0
        assert not endless.answer.complete
        page = sidecar.wait_metric(catalog.REQUESTS, 1, outcome="failed", error_type="reset")
        assert page.get(catalog.REQUESTS) == 1
        until(lambda: sidecar.metrics().get(catalog.ACTIVE) == 0, "no active request")


def test_a_second_sigterm_hurries(scripted_engine: ScriptedEngine) -> None:
    with Sidecar(scripted_engine.url, "--drain-delay", "60s", "--drain-timeout", "60s") as sidecar:
        endless = Client(sidecar.port, ENDLESS)
        sidecar.process.signal(signal.SIGTERM)
        until(lambda: get(f"{sidecar.health}/-/ready")[0] == 503, "not ready")
        assert not endless.done
        sidecar.process.signal(signal.SIGTERM)
        assert sidecar.process.wait_exit(8) == 0
        assert not endless.answer.complete
        assert sidecar.children("relay") + sidecar.children("observer") == []


def test_drain_waits_until_nothing_is_in_flight(scripted_engine: ScriptedEngine) -> None:
    with Sidecar(scripted_engine.url, "--drain-timeout", "20s") as sidecar:
        assert get(f"{sidecar.web}/-/drained")[0] == 503
        streams = [Client(sidecar.port, SHORTER) for _ in range(3)]
        assert drain(sidecar) == 0
        assert all(stream.answer.complete for stream in streams)
        assert get(f"{sidecar.health}/-/drained") == (200, "drained")
        assert get(f"{sidecar.health}/-/ready") == (503, "drained")
        until(lambda: http_answers(f"{sidecar.web}/-/drained"), "the web port's mirror")
        assert not tcp_accepts(sidecar.port)
        assert sidecar.metrics().get(catalog.REQUESTS, outcome="completed") == 3
        assert sidecar.process.returncode is None
        sidecar.process.signal(signal.SIGTERM)
        assert sidecar.process.wait_exit(10) == 0


def drain(sidecar: Sidecar) -> int:
    """The exit code of `inference-exporter drain`."""
    argv = [str(COMMAND), "drain", "--health.listen-address", f"127.0.0.1:{sidecar.health_port}"]
    return subprocess.run(argv, cwd=REPOSITORY, check=False, timeout=30).returncode


def test_idle_connections_are_closed_by_a_drain(scripted_engine: ScriptedEngine) -> None:
    with Sidecar(scripted_engine.url, "--drain-timeout", "20s") as sidecar, RawClient(sidecar.port) as idle:
        idle.post(CHAT, chat({"tokens": 2}))
        assert idle.answer().complete
        stream = Client(sidecar.port, SHORTER)
        sidecar.process.signal(signal.SIGTERM)
        assert idle.ended()
        assert not stream.done
        assert stream.answer.complete
        assert sidecar.process.wait_exit() == 0
