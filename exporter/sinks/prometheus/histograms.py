"""Writes the histograms of the catalogue, fast: a template for each family, and label strings encoded once per series.

A template has one ``%d`` for each bucket and a mark where the labels go, so that a series is one replacement and one
formatting, whatever its number of lines. Counts by classic bucket are kept as observations come, never at a scrape.
"""

from itertools import accumulate

from prometheus_client.utils import floatToGoString

from exporter import catalog
from exporter.catalog import Kind, Metric
from exporter.core.tally import Cells, Labels
from exporter.sinks.prometheus.exemplars import Exemplar, Exemplars, written
from exporter.sinks.prometheus.text import head, label_names, label_pairs

_MARK = "\0"


class _Line:
    """One series: its labels as they stand in a template, its counts by classic bucket (not cumulative), its sum."""

    __slots__ = ("counts", "pairs", "sum")

    def __init__(self, pairs: str, buckets: int) -> None:
        self.pairs = pairs.replace("%", "%%")
        self.counts = [0] * buckets
        self.sum = 0.0


class Family:
    """One histogram family and all its series."""

    def __init__(self, metric: Metric, header_labels: tuple[str, ...]) -> None:
        """Empty, except that a family without labels has its one series from the start."""
        self.metric = metric
        self._names = label_names(metric, header_labels)
        grid = catalog.grid(metric.name)
        self._bucket = grid.classic_indices()
        self._buckets = len(grid.classic) + 1
        edges = [*map(floatToGoString, grid.classic), "+Inf"]
        self._plain = _template(metric.name, edges, "%d", labels=bool(self._names))
        self._with_exemplars = _template(metric.name, edges, "%d%s", labels=bool(self._names))
        self._lines: dict[Labels, _Line] = {}
        if not self._names:
            self._line(())

    def fold(self, labels: Labels, cells: Cells) -> None:
        """Add observations to a series."""
        line = self._line(labels)
        counts, bucket = line.counts, self._bucket
        for cell, count in cells.counts.items():
            counts[bucket[cell]] += count
        line.sum += cells.sum

    def bucket(self, value: float) -> int:
        """The index of the classic bucket of one value."""
        return self._bucket[catalog.grid(self.metric.name).cell(value)]

    def write(self, exemplars: Exemplars | None) -> str:
        """The family as text, with exemplars (which only OpenMetrics knows) where they are given."""
        if not self._lines:
            return ""
        found = [head(self.metric, openmetrics=exemplars is not None)]
        for labels, line in self._lines.items():
            kept = exemplars.of((self.metric.name, labels)) if exemplars else None
            counts = list(accumulate(line.counts))
            template, values = (self._with_exemplars, _between(counts, kept)) if kept else (self._plain, counts)
            found.append(template.replace(_MARK, line.pairs) % (*values, line.sum, counts[-1]))
        return "".join(found)

    def _line(self, labels: Labels) -> _Line:
        line = self._lines.get(labels)
        if line is None:
            line = self._lines[labels] = _Line(label_pairs(self._names, labels), self._buckets)
        return line


class Histograms:
    """All histogram families of the catalogue, in its order."""

    def __init__(self, header_labels: tuple[str, ...]) -> None:
        """All empty."""
        self.families = {
            metric.name: Family(metric, header_labels) for metric in catalog.METRICS if metric.kind is Kind.HISTOGRAM
        }

    def fold(self, histograms: dict[tuple[str, Labels], Cells]) -> None:
        """Add the histograms of a tally."""
        for (name, labels), cells in histograms.items():
            self.families[name].fold(labels, cells)

    def write(self, exemplars: Exemplars | None) -> str:
        """All families as text; given exemplars make it OpenMetrics."""
        return "".join([family.write(exemplars) for family in self.families.values()])


def _template(name: str, edges: list[str], value: str, *, labels: bool) -> str:
    inside, braces = (f"{_MARK},", f"{{{_MARK}}}") if labels else ("", "")
    lines = [f'{name}_bucket{{{inside}le="{edge}"}} {value}\n' for edge in edges]
    return "".join([*lines, f"{name}_sum{braces} %r\n", f"{name}_count{braces} %d\n"])


def _between(counts: list[int], kept: dict[int, Exemplar]) -> list[object]:
    """Each count with what follows it on its line."""
    found: list[object] = [""] * (2 * len(counts))
    found[::2] = counts
    for bucket, exemplar in kept.items():
        found[2 * bucket + 1] = written(exemplar)
    return found
