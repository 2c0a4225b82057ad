"""Tokens per second over a sliding window, by labels: the TPS gauge."""

from exporter.core.tally import Labels

WINDOW = 10.0  # seconds
BEAT = 0.25  # seconds between pulses, the width of a bin
_BINS = round(WINDOW / BEAT)

State = list[tuple[Labels, dict[int, float]]]
"""What ``dump`` gives: tokens by bin of monotonic time, for each set of labels."""


class TokenRates:
    """Counts tokens in bins of a quarter second; what comes late or twice in a bin lands in its own."""

    def __init__(self) -> None:
        """Empty."""
        self._bins: dict[Labels, dict[int, float]] = {}

    def add(self, labels: Labels, at: float, tokens: float) -> None:
        """Tokens were made at ``at`` (monotonic seconds)."""
        bins = self._bins.setdefault(labels, {})
        number = int(at / BEAT)
        bins[number] = bins.get(number, 0.0) + tokens
        while len(bins) > 2 * _BINS:
            del bins[min(bins)]

    def read(self, now: float) -> dict[Labels, float]:
        """Tokens per second over the last ten, of every set of labels that ever had any; 0 where none came."""
        position = now / BEAT
        return {labels: _sum(bins, position) / WINDOW for labels, bins in self._bins.items()}

    def dump(self) -> State:
        """The bins as builtins."""
        return list(self._bins.items())

    def load(self, state: State) -> None:
        """Go on from a dump."""
        self._bins = {labels: dict(bins) for labels, bins in state}


def _sum(bins: dict[int, float], position: float) -> float:
    """The tokens from ``position - _BINS`` to ``position``; the bin that the window's beginning cuts counts in part."""
    newest = int(position)
    oldest = newest - _BINS
    whole = sum(tokens for number, tokens in bins.items() if oldest < number <= newest)
    return whole + bins.get(oldest, 0.0) * (1 - (position - newest))
