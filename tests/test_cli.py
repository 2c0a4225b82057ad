"""The command line as a user meets it: help, version, refusals, check and drain."""

import contextlib
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.ports import free_port

from exporter import __version__
from exporter.cli import main
from exporter.config import OPTIONS

UPSTREAM = ["--upstream", "http://127.0.0.1:8000"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def test_help_fits_eighty_columns_and_shows_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sidecar", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for option in OPTIONS:
        assert (f"{option.flag} {option.metavar}" in flat) != option.planned
        assert option.planned or option.default is None or f"({option.default})" in flat


def test_the_overview_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "sidecar" in capsys.readouterr().out
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"inference-exporter {__version__}\n"


@pytest.mark.parametrize("command", ["serve", "demo", "measure", "slo"])
def test_commands_that_are_not_built_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--anything"]) == 2
    assert capsys.readouterr().err == f"inference-exporter: the command '{command}' is not available yet\n"


@pytest.mark.parametrize("command", ["sidecar", "check"])
def test_everything_wrong_is_told_at_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--web.listen-adress", "x", "stray", "--workers", "0", "--listn=1", "--slo", "f"]
    assert main([command, *words]) == 2
    error = capsys.readouterr().err
    for said in (
        "unknown option --web.listen-adress; did you mean --web.listen-address?",
        "unknown option --listn; did you mean --listen?",
        "'stray' belongs to no option",
        "--workers: '0' (set by --workers)",
        "--upstream is required",
        "--slo (set by --slo) is not available yet",
    ):
        assert said in error
    assert "'x' belongs" not in error


def test_a_command_or_value_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sidcar"]) == 2
    assert "did you mean sidecar?" in capsys.readouterr().err
    assert main(["check", "--upstream"]) == 2
    assert "--upstream: expected one argument" in capsys.readouterr().err


def test_check_prints_a_configuration_that_can_be_used_as_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_EXPORTER_WORKERS", "3")
    words = [*UPSTREAM, "--models", "a", "--models", "b", "--label-header", "tenant=X-Tenant", "--listen", "[::1]:8080"]
    assert main(["check", *words]) == 0
    first = capsys.readouterr().out
    assert "upstream: http://127.0.0.1:8000  # --upstream\n" in first
    assert "workers: 3  # INFERENCE_EXPORTER_WORKERS\n" in first
    assert "models: a,b  # --models\n" in first
    assert "# spans: off" in first
    assert "# ends within 46 s of SIGTERM" in first
    file = tmp_path / "sidecar.yaml"
    file.write_text(first)
    monkeypatch.setenv("INFERENCE_EXPORTER_CONFIG", str(file))
    monkeypatch.delenv("INFERENCE_EXPORTER_WORKERS")
    assert main(["check"]) == 0
    second = capsys.readouterr().out
    assert f"workers: 3  # workers in {file}\n" in second
    assert strip(first) == [line for line in strip(second) if not line.startswith("config:")]


def strip(text: str) -> list[str]:
    return [line.partition("  #")[0] for line in text.splitlines()]


def test_check_tells_where_spans_go(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp,zipkin")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.1")
    assert main(["check", *UPSTREAM]) == 0
    said = capsys.readouterr()
    assert "# spans: to otlp, sampled: as the caller decided, else 0.1 of all requests" in said.out
    assert "warning: OTEL_TRACES_EXPORTER" in said.err


@pytest.mark.parametrize("option", ["--config", "--web.config.file"])
def test_a_file_that_cannot_be_read_is_named(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *UPSTREAM, option, str(tmp_path / "none")]) == 2
    assert f"wrong: {option}: {tmp_path / 'none'}" in capsys.readouterr().err


def test_a_web_configuration_is_looked_into_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "web.yaml"
    file.write_text("basic_auth_users: {reader: plain}\n")
    assert main(["sidecar", *UPSTREAM, "--web.config.file", str(file)]) == 2
    assert f"--web.config.file: {file}" in capsys.readouterr().err
    file.write_text("")
    assert main(["check", *UPSTREAM, "--web.config.file", str(file)]) == 0


def test_a_taken_port_ends_with_one_line_and_no_child(capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as taken:
        where = f"127.0.0.1:{taken.server_port}"
        words = [sys.executable, "-m", "exporter", "sidecar", *UPSTREAM, "--listen", where]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"--listen: cannot listen on {where}: Address already in use" in done.stderr


class Health(BaseHTTPRequestHandler):
    """A sidecar's health port as far as ``drain`` sees it."""

    drained = 200

    def do_POST(self) -> None:
        self.reply(202 if self.path == "/-/drain" else 404)

    def do_GET(self) -> None:
        self.reply(self.drained if self.path == "/-/drained" else 404)

    def reply(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("drained", "code"), [(200, 0), (503, 1)])
def test_drain_asks_and_waits(drained: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    handler = type("Handler", (Health,), {"drained": drained})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with contextlib.ExitStack() as after:
            after.callback(thread.join)
            after.callback(server.shutdown)
            assert main(["drain", "--health.listen-address", f"0.0.0.0:{server.server_port}"]) == code
    assert capsys.readouterr().err.count("did not say that it is drained") == code


def test_drain_without_a_sidecar(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert main(["drain", "--health.listen-address", f"127.0.0.1:{port}"]) == 1
    assert f"no sidecar answers on 127.0.0.1:{port}" in capsys.readouterr().err
    assert main(["drain", "--health.listen-address", "x"]) == 2
    assert main(["drain", "--workers", "1"]) == 2


def test_the_supervisor_loads_nothing_of_its_children() -> None:
    code = (
        "import sys, exporter.cli, exporter.supervisor;"
        "heavy = {'yaml', 'fastapi', 'uvicorn', 'opentelemetry', 'prometheus_client', 'uvloop', 'torch'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
