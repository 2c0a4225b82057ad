"""What is compared: a direct connection, nginx as a plain relay, and the sidecar with everything on."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.otlp import OtlpReceiver
from support.ports import free_port
from support.processes import REPOSITORY, Process, session_members
from support.sidecar import Sidecar

RELAY_CPU = {0}
OTHER_CPU = {1}
SOURCE = Path(__file__).with_name("load.c")
LOAD = REPOSITORY / ".cache/bench/load"

NGINX = """
daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  keepalive_requests 1000000;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 2048; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 300s;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Candidate:
    """One way to the engine; `relay` is the process whose cost is compared, None for the direct way."""

    name: str
    port: int
    relay: int | None
    others: Mapping[str, int] = field(default_factory=dict)
    """Its further processes by name, reported apart."""


def built() -> Path:
    """The load program, compiled when its source is newer."""
    if not LOAD.exists() or LOAD.stat().st_mtime < SOURCE.stat().st_mtime:
        LOAD.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", LOAD, SOURCE], check=True)
    return LOAD


def pin(pid: int, cpus: set[int]) -> None:
    """Bind every thread of a process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


@contextlib.contextmanager
def engine() -> Iterator[Process]:
    """The benchmark's engine; its `port` is in the name."""
    port = free_port()
    with Process([built(), "engine", str(port)], name=str(port), cpus=OTHER_CPU) as process:
        process.wait_output("ready")
        yield process


@contextlib.contextmanager
def nginx(engine_port: int) -> Iterator[Candidate]:
    """nginx, one worker, unbuffered, connections to the engine kept."""
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        raise FileNotFoundError("nginx is not installed; `make bench-relay` installs Debian's nginx-light")
    with tempfile.TemporaryDirectory(prefix="nginx-") as home:
        port = free_port()
        config = Path(home, "nginx.conf")
        config.write_text(NGINX.format(home=home, port=port, engine=engine_port))
        with Process([binary, "-p", home, "-c", config, "-e", f"{home}/error.log"], cpus=RELAY_CPU) as process:
            process.wait_tcp(port)
            (worker,) = [pid for pid in session_members(process.pid) if pid != process.pid]
            pin(worker, RELAY_CPU)
            yield Candidate("nginx", port, worker)


@contextlib.contextmanager
def sidecar(engine_port: int, flags: tuple[str, ...]) -> Iterator[Candidate]:
    """The sidecar, exporting every span to a real local collector; only its relay shares the relay's CPU."""
    port = free_port()
    with Process(
        ["env", "PYTHONPATH=tests", ".venv/bin/python", "-m", "support.otlp", "--port", str(port)]
    ) as receiver:
        pin(receiver.pid, OTHER_CPU)
        receiver.wait_tcp(port)
        environment = OtlpReceiver(port=port).environment
        with Sidecar(f"http://127.0.0.1:{engine_port}", *flags, env=environment, cpus=OTHER_CPU) as running:
            (relay,), (observer,) = running.children("relay"), running.children("observer")
            pin(relay, RELAY_CPU)
            pin(observer, OTHER_CPU)
            others = {"observer": observer, "supervisor": running.pid, "collector": receiver.pid}
            yield Candidate("sidecar", running.port, relay, others)
            requests = running.metrics().get("gen_ai_server_requests_total")
            print(f"\nthe sidecar counted {requests or 0:,.0f} requests")
    print(f"the collector's last word: {receiver.output}")
