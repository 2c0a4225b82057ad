"""Tallies add up: in whatever order and grouping, to the same counts."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.core.grid import Grid
from exporter.core.tally import Cells, Series, Tally

GRID = Grid((1.0, 10.0), -2, 4)
names = st.sampled_from(["a", "b"])
labels = st.sampled_from([("x",), ("y",), ()])
series: st.SearchStrategy[Series] = st.tuples(names, labels)
amounts = st.integers(0, 1000).map(lambda ticks: ticks / 8)  # sums of eighths are exact
cells = st.builds(Cells, st.dictionaries(st.integers(0, 20), st.integers(1, 9)), amounts)
tallies = st.builds(Tally, st.dictionaries(series, amounts), st.dictionaries(series, cells))


def merged(*parts: Tally) -> Tally:
    found = Tally()
    for part in parts:
        found.merge(part)
    return found


@given(tallies, tallies)
def test_the_order_never_matters(one: Tally, other: Tally) -> None:
    assert merged(one, other) == merged(other, one)


@given(tallies, tallies, tallies)
def test_the_grouping_never_matters(one: Tally, two: Tally, three: Tally) -> None:
    assert merged(merged(one, two), three) == merged(one, merged(two, three))


@given(tallies)
def test_merging_leaves_the_other_untouched(one: Tally) -> None:
    total = merged(one)
    kept = merged(one)
    total.merge(one)
    assert kept == one


@given(tallies)
def test_nothing_is_lost_when_series_meet_under_one_name(one: Tally) -> None:
    folded = Tally()
    folded.merge(one, lambda _: ("a", ("other",)))
    assert sum(folded.counters.values()) == sum(one.counters.values())
    assert sum(c.count for c in folded.histograms.values()) == sum(c.count for c in one.histograms.values())
    assert len(folded.counters) <= 1


@given(st.lists(amounts))
def test_observing_many_is_observing_each(values: list[float]) -> None:
    each, together = Tally(), Tally()
    for value in values:
        each.observe("a", (), GRID, value)
    together.observe_all("a", (), GRID, values)
    assert together.histograms.get(("a", ()), Cells()) == each.histograms.get(("a", ()), Cells())


def test_counters_count_one_unless_told() -> None:
    tally = Tally()
    assert not tally
    tally.inc("a", ("x",))
    tally.inc("a", ("x",), 2.5)
    assert tally
    assert tally.counters == {("a", ("x",)): 3.5}
