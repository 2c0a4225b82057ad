"""Cells: one count serves classic and native buckets, exactly at every edge."""

from bisect import bisect_left
from math import inf, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import catalog
from exporter.core.grid import NATIVE_SCHEMA, Grid

GRID = Grid((0.1, 0.25, 1.0, 3.0), -4, 2)
HISTOGRAMS = [metric.name for metric in catalog.METRICS if metric.kind is catalog.Kind.HISTOGRAM]

edges = st.sampled_from(GRID.edges)
values = st.floats(0, 100) | edges | edges.map(lambda edge: nextafter(edge, inf)) | edges.map(lambda e: nextafter(e, 0))


@given(st.lists(values), st.dictionaries(st.integers(0, len(GRID.edges)), st.integers(1, 9)))
def test_counting_many_is_counting_each(observed: list[float], before: dict[int, int]) -> None:
    one_by_one, together = dict(before), dict(before)
    for value in observed:
        one_by_one[GRID.cell(value)] = one_by_one.get(GRID.cell(value), 0) + 1
    GRID.count(observed, together)
    assert together == one_by_one


@given(st.lists(values))
def test_classic_counts_are_those_of_the_observations(observed: list[float]) -> None:
    cells: dict[int, int] = {}
    GRID.count(observed, cells)
    assert GRID.classic_counts(cells) == [sum(value <= edge for value in observed) for edge in (*GRID.classic, inf)]


@given(values)
def test_classic_indices_name_the_bucket_of_each_cell(value: float) -> None:
    assert GRID.classic_indices()[GRID.cell(value)] == bisect_left(GRID.classic, value)


@pytest.mark.parametrize("edge", GRID.classic)
def test_an_edge_belongs_to_the_bucket_below_it(edge: float) -> None:
    index = GRID.classic.index(edge)
    assert GRID.classic_indices()[GRID.cell(edge)] == index
    assert GRID.classic_indices()[GRID.cell(nextafter(edge, inf))] == index + 1


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_native_edges_are_powers_of_the_schemas_base(name: str) -> None:
    grid, metric = catalog.grid(name), catalog.BY_NAME[name]
    assert grid.native[0] == 2.0 ** metric.span[0]
    assert grid.native[-1] == 2.0 ** metric.span[1]
    for low, high in zip(grid.native, grid.native[1:], strict=False):
        assert high / low == pytest.approx(2 ** (2**-NATIVE_SCHEMA))


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_every_edge_is_the_upper_edge_of_its_own_cell(name: str) -> None:
    grid = catalog.grid(name)
    assert [grid.cell(edge) for edge in grid.edges] == list(range(len(grid.edges)))
    assert set(grid.edges) == {*grid.classic, *grid.native}
