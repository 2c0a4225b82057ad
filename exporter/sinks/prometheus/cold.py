"""Counters, gauges and the observer process's own figures, written by prometheus_client."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from exporter import catalog
from exporter.catalog import Kind, Metric
from exporter.core.tally import Labels, Series
from exporter.sinks.prometheus.text import family, label_names, unit

Values = Mapping[Series, float]
_KINDS: dict[Kind, Callable[..., CounterMetricFamily | GaugeMetricFamily]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
}


def process_registry() -> CollectorRegistry:
    """A registry of its own that tells about this process: CPU, memory, file descriptors, Python and its collector."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class Cold(Collector):
    """The counters and gauges of the catalogue, as they are at a scrape."""

    def __init__(self, header_labels: tuple[str, ...], registry: CollectorRegistry) -> None:
        """Write through ``registry``, after what it holds already."""
        self._header_labels = header_labels
        self._registry = registry
        self._values: dict[str, list[tuple[Labels, float]]] = {}
        registry.register(self)

    def write(self, counters: Values, gauges: Values, *, openmetrics: bool) -> bytes:
        """Everything in the registry; in OpenMetrics with the closing EOF."""
        self._values = _by_name(counters, gauges)
        if openmetrics:
            return generate_openmetrics(self._registry)  # type: ignore[no-untyped-call,no-any-return]  # has no types
        return generate_latest(self._registry)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The families that have values, in the catalogue's order."""
        for metric in catalog.METRICS:
            values = self._values.get(metric.name)
            if values and metric.kind in _KINDS:
                yield self._family(metric, values)

    def _family(self, metric: Metric, values: list[tuple[Labels, float]]) -> CounterMetricFamily | GaugeMetricFamily:
        names = label_names(metric, self._header_labels)
        found = _KINDS[metric.kind](family(metric), metric.help, labels=names, unit=unit(metric))
        for labels, value in values:
            found.add_metric(labels, value)
        return found


def _by_name(counters: Values, gauges: Values) -> dict[str, list[tuple[Labels, float]]]:
    """Values by metric; a counter without labels is there from the start, as 0, so that its first step is seen."""
    found: dict[str, list[tuple[Labels, float]]] = {}
    for metric in catalog.METRICS:
        if metric.kind is Kind.COUNTER and not metric.base and not metric.labels:
            found[metric.name] = [((), counters.get((metric.name, ()), 0))]
    for values in (counters, gauges):
        for (name, labels), value in values.items():
            if labels or values is gauges:
                found.setdefault(name, []).append((labels, value))
    return found
