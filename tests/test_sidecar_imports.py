"""What each process carries: the data plane and the command line nothing of the observer's, and nobody torch."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import REPOSITORY
from support.scripted_engine import ScriptedEngine
from support.sidecar import Sidecar

OBSERVERS = {"prometheus_client", "opentelemetry", "fastapi", "starlette", "pydantic", "uvicorn", "grpc", "bcrypt"}
ENGINES = {"torch", "transformers", "numpy"}
RELAY_MIB = 40

RELAY = "import exporter.relay.process, exporter.relay.turn, exporter.relay.channel"
SUPERVISOR = "import exporter.supervisor, exporter.supervisor.run, exporter.supervisor.ask"
OBSERVER = "import exporter.observer.process"
HELP = "from exporter.cli import main; assert main({arguments!r}) in (0, 2)"


def modules(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after running this."""
    told = "import sys, json; sys.stderr.write(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    argv = [sys.executable, "-c", f"{code}\n{told}"]
    found = subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True, timeout=60)
    return set(json.loads(found.stderr.decode().splitlines()[-1]))


@pytest.mark.parametrize("code", [RELAY, SUPERVISOR], ids=["relay", "supervisor"])
def test_the_data_plane_and_the_supervisor_carry_nothing_of_the_observer(code: str) -> None:
    assert modules(code) & (OBSERVERS | ENGINES) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["sidecar", "--help"], ["drain", "--help"], ["--version"], []])
def test_the_command_line_carries_nothing_it_does_not_need(arguments: list[str]) -> None:
    code = HELP.format(arguments=arguments)
    if "--help" in arguments[1:]:  # argparse leaves by itself
        code = f"try:\n    {code}\nexcept SystemExit:\n    pass"
    assert modules(code) & (OBSERVERS | ENGINES) == set()


def test_the_observer_carries_no_engine() -> None:
    assert modules(OBSERVER) & ENGINES == set()


def test_running_processes_have_loaded_nothing_that_they_must_not(scripted_engine: ScriptedEngine) -> None:
    """Compiled modules are mapped into the process, and pure ones cost memory: both can be seen from outside."""
    with Sidecar(scripted_engine.url) as sidecar:
        (relay,) = sidecar.children("relay")
        for pid in (relay, sidecar.pid):
            assert mapped(pid) & {"torch", "grpc", "pydantic_core", "bcrypt", "google", "_upb"} == set()
            assert resident_mib(pid) < RELAY_MIB


def mapped(pid: int) -> set[str]:
    """The packages whose shared objects are in a process."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return set(re.findall(r"site-packages/([^/]+)/\S*\.so", maps))


def resident_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
