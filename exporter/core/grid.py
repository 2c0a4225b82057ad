"""The cells into which observations are counted: fine enough for native buckets, exact at every classic edge."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import inf

NATIVE_SCHEMA = 5  # 2**5 = 32 buckets for each doubling: a quantile is off by at most 2.2 %


class Grid:
    """Sorted upper edges: the classic ones merged with native exponential ones.

    Cell ``i`` holds values ``edges[i-1] < value <= edges[i]``; the last cell holds everything above. Both classic and
    native buckets are sums of whole cells, so one count per observation serves every exposition.
    """

    def __init__(self, classic: Iterable[float], low: int, high: int) -> None:
        """Classic upper edges, and native edges from 2**low to 2**high."""
        self.classic = tuple(sorted(set(classic)))
        per = 2**NATIVE_SCHEMA
        self.native = tuple(2.0 ** (i / per) for i in range(low * per, high * per + 1))
        self.edges = tuple(sorted({*self.classic, *self.native}))

    def cell(self, value: float) -> int:
        """The cell of one value."""
        return bisect_left(self.edges, value)

    def count(self, values: Sequence[float], cells: dict[int, int]) -> None:
        """Add many values to sparse counts: sorted once and cut at the edges, cheaper than a search for each."""
        ordered = sorted(values)
        edges, done, total = self.edges, 0, len(ordered)
        while done < total:
            cell = bisect_left(edges, ordered[done])
            end = bisect_right(ordered, edges[cell], done) if cell < len(edges) else total
            cells[cell] = cells.get(cell, 0) + end - done
            done = end

    def classic_indices(self) -> tuple[int, ...]:
        """For each cell the index of the classic bucket that it lies in; the last index is that of +Inf."""
        return tuple(bisect_left(self.classic, edge) for edge in (*self.edges, inf))

    def classic_counts(self, cells: dict[int, int]) -> list[int]:
        """Cumulative counts at each classic edge, and the total last."""
        counts = [0] * (len(self.classic) + 1)
        for cell, count in cells.items():
            counts[bisect_left(self.classic, self.edges[cell]) if cell < len(self.edges) else -1] += count
        return list(accumulate(counts))
