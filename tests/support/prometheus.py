"""A real Prometheus that scrapes given targets every second, asked over its own API."""

import json
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeAlias

import yaml

from support.ports import free_port
from support.processes import REPOSITORY, Process
from support.waiting import DEADLINE, until

BINARIES = REPOSITORY / ".cache/prometheus/bin"
PROMTOOL = BINARIES / "promtool"
Json: TypeAlias = dict[str, object]
Sample: TypeAlias = tuple[dict[str, str], float]


class Prometheus:
    """Scrapes `targets` ("127.0.0.1:9464") and, where given, evaluates rule files; a context manager."""

    def __init__(self, *targets: str, rules: tuple[Path, ...] = (), job: Json | None = None) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="prometheus-")
        self.port = free_port()
        config = Path(self._home.name, "prometheus.yml")
        config.write_text(yaml.safe_dump(self._config(targets, rules, job or {})))
        self.process = Process(
            [
                BINARIES / "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self._home.name}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--enable-feature=native-histograms,exemplar-storage",
            ]
        )
        self.process.wait_http(f"{self.url}/-/ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()
        self._home.cleanup()

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}"

    def query(self, expression: str) -> list[Sample]:
        """An instant query: (labels, value) of each series; native histograms count as their count."""
        found = self._get("/api/v1/query", query=expression)
        assert isinstance(found, dict)
        return [(one["metric"], _number(one)) for one in found["result"]]

    def value(self, expression: str) -> float | None:
        """The one value of an expression; None where nothing matches."""
        found = self.query(expression)
        assert len(found) <= 1, f"{expression} gave {len(found)} series"
        return found[0][1] if found else None

    def exemplars(self, expression: str) -> list[Json]:
        """The exemplars of the last hour: `labels`, `value`, `timestamp`, and the `series` they belong to."""
        found = self._get("/api/v1/query_exemplars", query=expression, start="0", end="9999999999")
        assert isinstance(found, list)
        return [{**one, "series": series["seriesLabels"]} for series in found for one in series["exemplars"]]

    def targets(self) -> list[Json]:
        """What it says of its targets: `health`, `lastError`, ..."""
        found = self._get("/api/v1/targets")
        assert isinstance(found, dict)
        return list(found["activeTargets"])

    def alerts(self) -> list[Json]:
        """The alerts pending or firing."""
        found = self._get("/api/v1/alerts")
        assert isinstance(found, dict)
        return list(found["alerts"])

    def wait_for(self, expression: str, holds: Callable[[float], bool] = bool, within: float = DEADLINE) -> float:
        """The one value of an expression, once it satisfies `holds`."""

        def reached() -> tuple[float] | None:
            value = self.value(expression)
            return (value,) if value is not None and holds(value) else None

        return until(reached, f"Prometheus: {expression}", within, every=0.1)[0]

    def _get(self, path: str, **query: str) -> object:
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 loopback only
            return json.load(answer)["data"]

    @staticmethod
    def _config(targets: tuple[str, ...], rules: tuple[Path, ...], job: Json) -> Json:
        scrape: Json = {
            "job_name": "inference-exporter",
            "static_configs": [{"targets": list(targets)}],
            "scrape_classic_histograms": True,
            **job,
        }
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rule) for rule in rules],
            "scrape_configs": [scrape],
        }


def _number(result: Json) -> float:
    """The value of a series; of a native histogram, its count."""
    value = result.get("value")
    if isinstance(value, list):
        return float(value[1])
    histogram = result["histogram"]
    assert isinstance(histogram, list)
    return float(histogram[1]["count"])
