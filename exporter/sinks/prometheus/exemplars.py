"""The newest sampled trace of each classic bucket, within a bounded memory."""

from exporter.core.tally import Labels, Series

Exemplar = tuple[str, float, float]  # trace id, value in the metric's unit, Unix seconds
Rows = list[tuple[str, Labels, dict[int, Exemplar]]]


class Exemplars:
    """For each series, exemplars by index of the classic bucket; the series touched longest ago is given up first."""

    def __init__(self, limit: int = 2000) -> None:
        """Keep the exemplars of at most ``limit`` series (at most 29 of about 200 bytes each)."""
        self._limit = limit
        self._series: dict[Series, dict[int, Exemplar]] = {}

    def keep(self, series: Series, bucket: int, exemplar: Exemplar) -> None:
        """Take the newest exemplar of a bucket."""
        buckets = self._series.pop(series, {})
        buckets[bucket] = exemplar
        self._series[series] = buckets
        if len(self._series) > self._limit:
            del self._series[next(iter(self._series))]

    def of(self, series: Series) -> dict[int, Exemplar] | None:
        """The exemplars of a series by bucket."""
        return self._series.get(series)

    def rows(self) -> Rows:
        """All of them, the series touched longest ago first."""
        return [(name, labels, buckets) for (name, labels), buckets in self._series.items()]

    def load(self, rows: Rows) -> None:
        """Put back what ``rows`` gave."""
        self._series = {(name, labels): buckets for name, labels, buckets in rows[-self._limit :]}


def written(exemplar: Exemplar) -> str:
    """An exemplar as it stands behind a bucket's value in OpenMetrics."""
    trace_id, value, wall = exemplar
    return f' # {{trace_id="{trace_id}"}} {value!r} {wall:.3f}'
