"""The Prometheus sink: totals since the first start, and their exposition."""

import platform
from collections.abc import Mapping

import msgspec
from prometheus_client import CollectorRegistry

from exporter import __version__, catalog, counting
from exporter.core.tally import Cells, Labels, Series, Tally
from exporter.core.timeline import Timeline
from exporter.sinks.prometheus.cold import Cold, process_registry
from exporter.sinks.prometheus.exemplars import Exemplars, Rows
from exporter.sinks.prometheus.histograms import Histograms

_BUILD: Labels = (__version__, platform.python_version())

State = tuple[list[tuple[str, Labels, float]], list[tuple[str, Labels, dict[int, int], float]], Rows]
"""What ``dump`` gives: counters, histogram cells and sums, exemplars."""


class PrometheusSink:
    """Folds ended requests and tallies into totals and writes them for a scrape. For one thread only.

    Everything comes in with admitted labels (exporter.observer.admission). Memory grows with the number of series and
    nothing else.
    """

    def __init__(
        self, header_labels: tuple[str, ...] = (), *, registry: CollectorRegistry | None = None, build: Labels = _BUILD
    ) -> None:
        """``header_labels`` follow the base labels; ``registry`` may bring collectors of its own, else this process's.

        ``build`` is the version and Python's version, for inference_exporter_build_info.
        """
        _check_header_labels(header_labels)
        self.totals = Tally()
        self._build: Series = (catalog.BUILD, build)
        self._histograms = Histograms(header_labels)
        self._exemplars = Exemplars()
        self._cold = Cold(header_labels, process_registry() if registry is None else registry)

    def record(self, timeline: Timeline, wall: float) -> None:
        """Count one ended request; ``wall`` is its end in Unix seconds, for exemplars."""
        tally = Tally()
        counting.add(timeline, tally)
        self.merge(tally)
        if timeline.identity.sampled:
            self._keep_exemplars(timeline, wall)

    def merge(self, tally: Tally) -> None:
        """Add counts."""
        self._histograms.fold(tally.histograms)
        self.totals.merge(tally)

    def render(self, gauges: Mapping[Series, float], *, openmetrics: bool) -> bytes:
        """Everything, as classic text or as OpenMetrics 1.0; gauges are as they are now, by series."""
        hot = self._histograms.write(self._exemplars if openmetrics else None)
        cold = self._cold.write(self.totals.counters, {self._build: 1, **gauges}, openmetrics=openmetrics)
        return hot.encode() + cold

    def dump(self) -> State:
        """The totals and exemplars as builtins; they share the live ones, so encode them before counting on."""
        counters = [(name, labels, amount) for (name, labels), amount in self.totals.counters.items()]
        histograms = [(name, labels, c.counts, c.sum) for (name, labels), c in self.totals.histograms.items()]
        return counters, histograms, self._exemplars.rows()

    def load(self, state: object) -> None:
        """Start from a dump, as it was or as it came through MessagePack; ValueError where it is not one."""
        counters, histograms, exemplars = msgspec.convert(state, State)
        self.merge(
            Tally(
                {(name, labels): amount for name, labels, amount in counters},
                {(name, labels): Cells(counts, total) for name, labels, counts, total in histograms},
            )
        )
        self._exemplars.load(exemplars)

    def _keep_exemplars(self, timeline: Timeline, wall: float) -> None:
        base, trace_id = counting.base_labels(timeline.identity), timeline.identity.trace_id
        found = counting.observations(timeline)
        if timeline.ttft_told and timeline.ttft is not None:  # counted by a pulse, which knows no trace
            found.append((catalog.TTFT, (), timeline.ttft))
        for name, labels, value in found:
            bucket = self._histograms.families[name].bucket(value)
            self._exemplars.keep((name, base + labels), bucket, (trace_id, float(value), wall))


def _check_header_labels(header_labels: tuple[str, ...]) -> None:
    taken = {"le", *catalog.BASE_LABELS, *(label for metric in catalog.METRICS for label in metric.labels)}
    for label in header_labels:
        if label in taken or header_labels.count(label) > 1:
            raise ValueError(f"label {label!r} of a header: the name is taken; choose one that no metric has")
