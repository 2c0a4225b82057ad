"""A metrics page as values: the samples of one scrape, found by name and labels."""

import urllib.request
from dataclasses import dataclass
from typing import Self

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic
from prometheus_client.samples import Sample

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True)
class Page:
    """One scrape."""

    text: str
    samples: tuple[Sample, ...]

    @classmethod
    def scrape(cls, url: str, *, openmetrics: bool = False) -> Self:
        """GET the page and parse it with the official parser of its format."""
        headers = {"Accept": OPENMETRICS} if openmetrics else {}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:  # noqa: S310 loopback only
            return cls.parse(answer.read().decode(), openmetrics=openmetrics)

    @classmethod
    def parse(cls, text: str, *, openmetrics: bool = False) -> Self:
        """The text form, classic or OpenMetrics."""
        families = (parse_openmetrics if openmetrics else parse_classic)(text)
        return cls(text, tuple(sample for family in families for sample in family.samples))

    def all(self, name: str, **labels: str) -> list[Sample]:
        """The samples of that name that carry at least these labels."""
        return [one for one in self.samples if one.name == name and labels.items() <= one.labels.items()]

    def get(self, name: str, **labels: str) -> float | None:
        """The sum over the samples of that name with these labels; None where there is none."""
        found = self.all(name, **labels)
        return sum(one.value for one in found) if found else None
