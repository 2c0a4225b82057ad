"""The real `inference-exporter sidecar`, started as a process tree in front of an upstream."""

from collections.abc import Mapping
from typing import Self

from support.exposition import Page
from support.ports import free_ports
from support.processes import REPOSITORY, Process, command_line, session_members
from support.waiting import DEADLINE, until

COMMAND = REPOSITORY / ".venv/bin/inference-exporter"
WITHOUT_OTEL = {"OTEL_SDK_DISABLED": "true"}


class Sidecar:
    """A sidecar that is ready, and ends without the drain delay unless told one.

    `env` may hold `OtlpReceiver.environment`, else nothing is exported.
    """

    def __init__(
        self,
        upstream: str,
        *flags: str,
        env: Mapping[str, str] | None = None,
        cpus: set[int] | None = None,
        wait: bool = True,
    ) -> None:
        self.port, self.web_port, self.health_port = free_ports(3)
        argv = [
            str(COMMAND),
            "sidecar",
            *("--upstream", upstream),
            *("--listen", f"127.0.0.1:{self.port}"),
            *("--web.listen-address", f"127.0.0.1:{self.web_port}"),
            *("--health.listen-address", f"127.0.0.1:{self.health_port}"),
            *(() if "--drain-delay" in flags else ("--drain-delay", "0")),
            *flags,
        ]
        self._process = Process(argv, name="sidecar", env=WITHOUT_OTEL if env is None else env, cpus=cpus)
        if wait:
            self.wait_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where clients go, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def web(self) -> str:
        """The web port's address, without a path."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def health(self) -> str:
        """The health port's address, without a path."""
        return f"http://127.0.0.1:{self.health_port}"

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self._process.pid

    @property
    def process(self) -> Process:
        """The supervisor's process: its output, exit code, signals."""
        return self._process

    @property
    def output(self) -> str:
        """What the sidecar's processes have written."""
        return self._process.output

    def children(self, role: str) -> list[int]:
        """The pids of the `relay`s or the `observer`, told by their command line."""
        return [pid for pid in session_members(self.pid) if f"exporter.{role}" in command_line(pid)]

    def wait_ready(self, within: float = DEADLINE) -> None:
        """Wait until it accepts requests and serves its metrics."""
        try:
            self._process.wait_http(f"{self.health}/-/ready", within)
            self._process.wait_http(f"{self.web}/metrics", within)
        except AssertionError:
            self.stop()
            raise

    def metrics(self, *, openmetrics: bool = False) -> Page:
        """One scrape of its own metrics."""
        return Page.scrape(f"{self.web}/metrics", openmetrics=openmetrics)

    def wait_metric(self, name: str, at_least: float, within: float = DEADLINE, **labels: str) -> Page:
        """The scrape in which that sum first reached `at_least`."""

        def reached() -> Page | None:
            page = self.metrics()
            return page if (page.get(name, **labels) or 0.0) >= at_least else None

        return until(reached, f"{name}{labels} >= {at_least:g}", within, every=0.05)

    def stop(self, grace: float = 15.0) -> int:
        """SIGTERM, wait, and the exit code."""
        return self._process.stop(grace)
