"""The web port: content negotiation, protection, pages; and the small parts that the process is made of."""

import asyncio
import gzip
import json
import logging
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import bcrypt
import httpx
import pytest
from msgspec.structs import replace
from samples import STREAMED
from support.observing import FACTS, PlayedSupervisor, configuration

from exporter import records
from exporter.config import Upstream
from exporter.control import Facts
from exporter.observer import memory, models, webconfig
from exporter.observer.fold import Fold
from exporter.observer.gauges import gauges
from exporter.observer.memory import Advice
from exporter.observer.page import page
from exporter.observer.quiet import OncePerMinute
from exporter.observer.session import Session
from exporter.observer.status import status
from exporter.observer.web import OPENMETRICS, TEXT, Scrapes, application, wants_openmetrics
from exporter.records import Ended, Hello

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4))
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1"
    ";q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Board:
    """An application over a fold that has seen one request, driven without a socket."""

    def __init__(self, users: dict[str, bytes] | None = None) -> None:
        self.fold = Fold()
        session = Session(self.fold, (0, "boot"))
        script = replace(STREAMED, identity=replace(STREAMED.identity, model="<script>"))
        session.feed(records.frame(Hello(0, "boot", 1, 1e9, 50.0)))
        session.feed(records.frame(Ended(1, STREAMED)) + records.frame(Ended(2, script)))
        self.facts: Facts | None = FACTS
        self.complete = True
        self.app = application(
            Scrapes(self.settled, lambda openmetrics: self.render(openmetrics=openmetrics)),
            lambda: self.facts,
            lambda: status(configuration(), self.fold, self.facts, {0: 1}, 100.0),
            users or {},
        )

    async def settled(self) -> bool:
        return self.complete

    def render(self, *, openmetrics: bool) -> bytes:
        return self.fold.totals.render(gauges(self.fold, self.facts, 100.0), openmetrics=openmetrics)

    def get(self, path: str, auth: tuple[str, str] | None = None, **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://observer") as client:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.get(path, headers={"accept-encoding": "identity", **named}, auth=auth)

        return asyncio.run(ask())


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (PROMETHEUS, True),
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=nonsense", False),
    ],
)
def test_openmetrics_is_given_to_who_prefers_it(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


def test_metrics_are_classic_text_unless_openmetrics_is_asked_for() -> None:
    board = Board()
    classic, open_ = board.get("/metrics"), board.get("/metrics", accept=PROMETHEUS)
    assert (classic.headers["content-type"], open_.headers["content-type"]) == (TEXT, OPENMETRICS)
    assert open_.text.endswith("# EOF\n")
    assert 'outcome="completed"' in classic.text
    assert classic.headers["vary"] == "Accept, Accept-Encoding"


def test_metrics_are_compressed_for_who_takes_it() -> None:
    board = Board()
    answer = board.get("/metrics", accept_encoding="gzip;q=1.0, identity")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text.startswith("# HELP")  # httpx decompressed it
    assert "content-encoding" not in board.get("/metrics", accept_encoding="gzip;q=0").headers


def test_metrics_that_are_not_complete_are_refused() -> None:
    board = Board()
    board.complete = False
    assert board.get("/metrics").status_code == 503


def test_a_third_scrape_waits_for_its_turn() -> None:
    async def scenario() -> tuple[list[int], int]:
        began: list[int] = []
        release = threading.Event()
        body = b"x" * 2000

        def compress(data: bytes, level: int) -> bytes:
            began.append(level)
            assert release.wait(30)
            return gzip.compress(data, 1)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("exporter.observer.web.gzip", type("Gzip", (), {"compress": staticmethod(compress)}))

            async def settled() -> bool:
                return True

            scrapes = Scrapes(settled, lambda _: body)
            asked = [asyncio.create_task(scrapes.answer("", "gzip")) for _ in range(3)]
            async with asyncio.timeout(30):
                while len(began) < 2:  # noqa: ASYNC110 - it is threads that are waited for
                    await asyncio.sleep(0)
            together = len(began)
            release.set()
            await asyncio.gather(*asked)
        return began, together

    began, together = asyncio.run(scenario())
    assert (len(began), together) == (3, 2)


@pytest.mark.parametrize("name", ["healthy", "ready", "drained"])
def test_probes_mirror_the_facts(name: str) -> None:
    board = Board()
    plain = {"ready": False, "healthy": False, "draining": False, "drained": False, "upstream_up": False}
    board.facts = Facts(**{**plain, name: True}, restarts={})
    assert (board.get(f"/-/{name}").status_code, board.get(f"/-/{name}").text) == (200, f"{name}\n")
    board.facts = Facts(**plain, restarts={})
    assert board.get(f"/-/{name}").status_code == 503
    board.facts = None
    assert board.get(f"/-/{name}").status_code == 503


def test_the_page_loads_nothing_and_shows_no_markup_of_clients() -> None:
    answer = Board().get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "src=" not in answer.text
    assert "http-equiv" not in answer.text
    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "color-scheme: light dark" in answer.text
    assert '<a href="/metrics">' in answer.text


def test_the_page_of_a_fresh_observer() -> None:
    text = page(status(configuration(), Fold(), None, {}, 0.0))
    assert "No request yet." in text
    assert "<dt>Engine reachable</dt><dd>unknown</dd>" in text


def test_status_as_json() -> None:
    told = json.loads(Board().get("/api/status").text)
    assert told["engine_up"] is True
    assert {row["model"] for row in told["rows"]} == {"llama-3-8b", "<script>"}
    assert told["rows"][1]["ttft"]["p50"] == pytest.approx(0.5, rel=0.03)


def test_unknown_paths_are_not_found_and_the_api_has_no_docs() -> None:
    board = Board()
    assert [board.get(path).status_code for path in ("/nothing", "/docs", "/openapi.json")] == [404, 404, 404]


def test_every_path_is_behind_basic_auth_where_there_are_users() -> None:
    board = Board({"prometheus": HASH})
    for path in ("/", "/metrics", "/api/status", "/-/healthy", "/nothing"):
        refused = board.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (
            401,
            'Basic realm="inference-exporter"',
        )
    assert board.get("/metrics", auth=("prometheus", "secret")).status_code == 200
    assert board.get("/-/healthy", auth=("prometheus", "secret")).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer secret",
        "Basic",
        "Basic not base64!",
        "Basic /w==",
        "Basic bm8tY29sb24=",
        httpx.BasicAuth("prometheus", "wrong")._auth_header,
        httpx.BasicAuth("nobody", "secret")._auth_header,
        httpx.BasicAuth("prometheus", "sec\0ret")._auth_header,
        httpx.BasicAuth("prometheus", "x" * 100)._auth_header,
        httpx.BasicAuth("prometheus", "")._auth_header,
    ],
)
def test_other_credentials_are_refused(authorization: str) -> None:
    board = Board({"prometheus": HASH})
    assert board.get("/metrics", authorization=authorization).status_code == 401


def test_verdicts_are_remembered_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def check(password: bytes, _: bytes) -> bool:
        asked.append(password)
        return password == b"secret"

    monkeypatch.setattr("exporter.observer.auth.bcrypt.checkpw", check)
    board = Board({"prometheus": HASH})
    for _ in range(3):
        assert board.get("/metrics", auth=("prometheus", "secret")).status_code == 200
    assert asked == [b"secret"]
    for number in range(100):
        board.get("/metrics", auth=("prometheus", f"{number}"))
    board.get("/metrics", auth=("prometheus", "secret"))
    assert asked.count(b"secret") == 2


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, made by openssl's own command line."""
    cert, key = folder / "server.crt", folder / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_tls_and_basic_auth_from_a_file_protect_the_real_port(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path)
    file = tmp_path / "web.yml"
    file.write_text(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
        f"basic_auth_users:\n  prometheus: {HASH.decode()}\n"
    )
    with PlayedSupervisor(configuration(**{"web.config.file": str(file)})) as supervisor:
        supervisor.start()
        url = supervisor.url.replace("http:", "https:")
        with httpx.Client(verify=ssl.create_default_context(cafile=str(cert)), trust_env=False) as client:
            assert client.get(f"{url}/metrics").status_code == 401
            assert client.get(f"{url}/metrics", auth=("prometheus", "secret")).status_code == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "list, expected a mapping"),
        ("a: b: c", "mapping values are not allowed"),
        ("http_server_config: {}", "'http_server_config' is not known, accepted: basic_auth_users, tls_server_config"),
        ("tls_server_config: {cert_file: a}", "tls_server_config.key_file: None, expected the name of a PEM file"),
        ("tls_server_config: {cert_file: a, key_file: b, min_version: TLS13}", "'min_version' is not known"),
        ("tls_server_config: {cert_file: a, key_file: b}", "No such file"),
        ("basic_auth_users: {me: hunter2}", "basic_auth_users.me: not a bcrypt hash"),
        ("basic_auth_users: {1: x}", "1 is not known"),
    ],
)
def test_a_web_config_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "web.yml"
    file.write_text(text)
    with pytest.raises(webconfig.WebConfigError, match=message) as caught:
        webconfig.load(file)
    assert "hunter2" not in str(caught.value)


def test_an_empty_web_config_protects_nothing(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("")
    assert webconfig.load(tmp_path / "web.yml") == webconfig.WebConfig()
    with pytest.raises(webconfig.WebConfigError, match=r"absent\.yml"):
        webconfig.load(tmp_path / "absent.yml")


@pytest.mark.parametrize(
    ("size", "ceiling", "uptime", "advice"),
    [
        (79, 100, 100.0, Advice.NOTHING),
        (81, 100, 100.0, Advice.SHED),
        (101, 100, 100.0, Advice.RESTART),
        (101, 100, 59.0, Advice.SHED),
        (101, 0, 100.0, Advice.NOTHING),
    ],
)
def test_the_memory_ceiling(size: int, ceiling: int, uptime: float, advice: Advice) -> None:
    assert memory.advise(size, ceiling, uptime) is advice


def test_resident_memory_is_known_here_and_unknown_elsewhere(tmp_path: Path) -> None:
    assert (memory.resident() or 0) > 1_000_000
    assert memory.resident(tmp_path / "statm") is None


class Engine(BaseHTTPRequestHandler):
    answer = (200, b"")

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status if self.path == "/prefix/v1/models" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Keep quiet."""


@pytest.fixture
def engine() -> Iterator[tuple[Upstream, type[Engine]]]:
    class Handler(Engine):
        pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Upstream("http", "127.0.0.1", server.server_address[1], "/prefix"), Handler
        server.shutdown()
        thread.join(30)


def test_model_names_come_from_the_engine(engine: tuple[Upstream, type[Engine]]) -> None:
    upstream, handler = engine
    handler.answer = (200, b'{"object":"list","data":[{"id":"a"},{"id":"b"},{"id":7},"c",{}]}')
    assert models.fetch(upstream) == ["a", "b"]


@pytest.mark.parametrize("answer", [(200, b"<html>"), (200, b"[]"), (200, b'{"data":7}'), (500, b"{}")])
def test_an_engine_that_does_not_list_models(engine: tuple[Upstream, type[Engine]], answer: tuple[int, bytes]) -> None:
    upstream, handler = engine
    handler.answer = answer
    with pytest.raises(ValueError, match=r"/v1/models|Expecting value"):
        models.fetch(upstream)


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(OSError, match="refused"):
        models.fetch(configuration().upstream)


def test_exporters_of_spans_may_speak_once_a_minute() -> None:
    now = 0.0
    quiet = OncePerMinute(lambda: now)
    theirs = logging.LogRecord("opentelemetry.sdk", logging.ERROR, "", 0, "away", None, None)
    ours = logging.LogRecord("exporter", logging.INFO, "", 0, "fine", None, None)
    assert [quiet.filter(theirs), quiet.filter(theirs), quiet.filter(ours)] == [True, False, True]
    now = 61.0
    assert quiet.filter(theirs)
