"""What is true now, as gauges: computed at a scrape from the newest pulses and facts, never kept."""

from collections.abc import Iterable, Mapping

from exporter import catalog
from exporter.control import Facts
from exporter.core.recorder import LivePhase
from exporter.core.tally import Labels, Series
from exporter.observer.fold import Fold, RelayState

Standing = dict[tuple[Labels, str], tuple[int, float]]
"""By base labels and phase: how many live requests, and the arrival of the oldest in monotonic seconds."""


def standing(relays: Iterable[RelayState]) -> Standing:
    """The live requests of all relays together."""
    found: Standing = {}
    for relay in relays:
        for row in relay.live:
            for phase, (count, oldest) in row.phases.items():
                others, older = found.get((row.labels, phase), (0, oldest))
                found[row.labels, phase] = (others + count, min(older, oldest))
    return found


def gauges(fold: Fold, facts: Facts | None, now: float) -> Mapping[Series, float]:
    """Every gauge by series at ``now`` (monotonic seconds), and the restarts that the supervisor counts.

    A set of labels that was once seen keeps its phases, with 0 requests; only a live request has an age.
    """
    found: dict[Series, float] = {}
    for base, last_token in fold.bases.items():
        found.update({(catalog.ACTIVE, (*base, phase.value)): 0.0 for phase in LivePhase})
        if last_token is not None:
            found[catalog.LAST_TOKEN, base] = last_token
    for (base, name), (count, oldest) in standing(fold.relays.values()).items():
        found[catalog.ACTIVE, (*base, name)] = float(count)
        found[catalog.OLDEST, (*base, name)] = max(0.0, now - oldest)
    for base, rate in fold.rates.read(now).items():
        found[catalog.TPS, base] = rate
    if facts is not None:
        found[catalog.ENGINE_UP, ()] = float(facts.upstream_up)
        found.update({(catalog.RESTARTS, (process,)): float(count) for process, count in facts.restarts.items()})
    return found
