"""How things stand, as one value: what the status page shows and ``/api/status`` answers."""

from dataclasses import dataclass

from exporter import __version__, catalog
from exporter.config import Config
from exporter.control import Facts
from exporter.core.grid import Grid
from exporter.core.recorder import LivePhase
from exporter.core.tally import Cells, Labels
from exporter.observer.fold import Fold
from exporter.observer.gauges import standing

_OUTCOME = catalog.BY_NAME[catalog.REQUESTS].labels.index("outcome")


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of all observations so far, in seconds; ``None`` where there are none."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One set of base labels: the traffic of one model through one operation."""

    operation: str
    model: str
    provider: str
    labels: tuple[str, ...]
    tokens_per_second: float
    active: dict[str, int]
    ttft: Quantiles
    tpot: Quantiles
    requests: dict[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """Everything; what only the supervisor knows is ``None`` until it told."""

    version: str
    upstream: str
    engine: str
    engine_up: bool | None
    ready: bool | None
    draining: bool | None
    relays: dict[int, int]
    restarts: dict[str, int]
    rows: tuple[Row, ...]


def status(config: Config, fold: Fold, facts: Facts | None, pids: dict[int, int], now: float) -> Status:
    """How things stand at ``now`` (monotonic seconds); ``pids`` are the relays' by slot."""
    return Status(
        version=__version__,
        upstream=str(config.upstream),
        engine=config.engine,
        engine_up=facts.upstream_up if facts else None,
        ready=facts.ready if facts else None,
        draining=facts.draining if facts else None,
        relays=dict(sorted(pids.items())),
        restarts=dict(facts.restarts) if facts else {},
        rows=_rows(fold, now),
    )


def quantile(cells: Cells | None, grid: Grid, part: float) -> float | None:
    """The value below which ``part`` of the observations are, by linear interpolation inside its cell."""
    total = cells.count if cells else 0
    if cells is None or not total:
        return None
    rank, below = part * total, 0
    for cell, count in sorted(cells.counts.items()):
        if below + count >= rank:
            return _within(grid, cell, (rank - below) / count)
        below += count
    return float(grid.edges[-1])


def _within(grid: Grid, cell: int, part: float) -> float:
    low = float(grid.edges[cell - 1]) if cell else 0.0
    high = float(grid.edges[cell]) if cell < len(grid.edges) else low
    return low + (high - low) * part


def _rows(fold: Fold, now: float) -> tuple[Row, ...]:
    live, rates, requests = standing(fold.relays.values()), fold.rates.read(now), _requests(fold)
    return tuple(
        Row(
            operation=base[0],
            model=base[catalog.MODEL],
            provider=base[2],
            labels=base[3:],
            tokens_per_second=rates.get(base, 0.0),
            active={phase.value: live.get((base, phase.value), (0, 0.0))[0] for phase in LivePhase},
            ttft=_quantiles(fold, catalog.TTFT, base),
            tpot=_quantiles(fold, catalog.TPOT, base),
            requests=requests.get(base, {}),
        )
        for base in sorted(fold.bases)
    )


def _quantiles(fold: Fold, name: str, base: Labels) -> Quantiles:
    cells, grid = fold.totals.totals.histograms.get((name, base)), catalog.grid(name)
    return Quantiles(quantile(cells, grid, 0.5), quantile(cells, grid, 0.99))


def _requests(fold: Fold) -> dict[Labels, dict[str, int]]:
    own = len(catalog.BASE_LABELS) + len(fold.header_labels)
    found: dict[Labels, dict[str, int]] = {}
    for (name, labels), count in fold.totals.totals.counters.items():
        if name == catalog.REQUESTS:
            outcomes, outcome = found.setdefault(labels[:own], {}), labels[own + _OUTCOME]
            outcomes[outcome] = outcomes.get(outcome, 0) + int(count)
    return found
