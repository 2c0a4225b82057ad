"""The Prometheus exposition: totals folded from records, written as classic text or OpenMetrics.

1. ``sink`` holds the totals (cells, see exporter.core.grid) and is the only thing others import.
2. ``histograms`` writes the histograms, which are nearly all of the lines, with templates of its own.
3. ``cold`` gives counters, gauges and the observer process's own figures to a prometheus_client registry.
4. ``exemplars`` remembers the newest sampled trace of each bucket.
"""

from exporter.sinks.prometheus.sink import PrometheusSink, State

__all__ = ["PrometheusSink", "State"]
