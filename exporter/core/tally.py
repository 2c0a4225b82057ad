"""Counts that add up: counters and sparse histogram cells by series."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from exporter.core.grid import Grid

Labels = tuple[str, ...]
Series = tuple[str, Labels]


@dataclass(slots=True)
class Cells:
    """One histogram series: observations by grid cell, and their sum in the metric's unit."""

    counts: dict[int, int] = field(default_factory=dict)
    sum: float = 0.0

    @property
    def count(self) -> int:
        """How many observations there are."""
        return sum(self.counts.values())

    def add(self, other: "Cells") -> None:
        """Add another's observations."""
        for cell, count in other.counts.items():
            self.counts[cell] = self.counts.get(cell, 0) + count
        self.sum += other.sum


@dataclass(slots=True)
class Tally:
    """Counter values and histogram cells; merging two is addition, so the order never matters."""

    counters: dict[Series, float] = field(default_factory=dict)
    histograms: dict[Series, Cells] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.counters or self.histograms)

    def inc(self, name: str, labels: Labels, amount: float = 1) -> None:
        """Add to a counter."""
        series = (name, labels)
        self.counters[series] = self.counters.get(series, 0) + amount

    def observe(self, name: str, labels: Labels, grid: Grid, value: float) -> None:
        """Add one observation."""
        cells = self._cells((name, labels))
        cell = grid.cell(value)
        cells.counts[cell] = cells.counts.get(cell, 0) + 1
        cells.sum += value

    def observe_all(self, name: str, labels: Labels, grid: Grid, values: Sequence[float]) -> None:
        """Add many observations."""
        cells = self._cells((name, labels))
        grid.count(values, cells.counts)
        cells.sum += sum(values)

    def merge(self, other: "Tally", rename: Callable[[Series], Series] | None = None) -> None:
        """Add another tally, its series renamed on the way where ``rename`` is given."""
        for series, amount in other.counters.items():
            name = rename(series) if rename else series
            self.counters[name] = self.counters.get(name, 0) + amount
        for series, cells in other.histograms.items():
            self._cells(rename(series) if rename else series).add(cells)

    def _cells(self, series: Series) -> Cells:
        cells = self.histograms.get(series)
        if cells is None:
            cells = self.histograms[series] = Cells()
        return cells
