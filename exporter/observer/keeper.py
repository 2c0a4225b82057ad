"""When the checkpoint is written: soon after anything changed, but never for more than a twentieth of the time."""

from collections.abc import Callable

from exporter.observer.checkpoint import Checkpoint
from exporter.observer.fold import Fold

SHORTEST = 0.25  # seconds between two checkpoints
_SHARE = 20  # the interval is at least this many times the cost of the last one


class Keeper:
    """Writes a Fold into a Checkpoint when it has changed."""

    def __init__(self, fold: Fold, checkpoint: Checkpoint, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds, to know what writing costs."""
        self._fold = fold
        self._checkpoint = checkpoint
        self._clock = clock
        self._saved = -1  # a Fold that was just loaded may have gone on already
        self.interval = SHORTEST

    def save(self) -> bool:
        """Write now if anything changed since the last time; whether it did."""
        self._fold.settle()
        if self._fold.version == self._saved:
            return False
        begin = self._clock()
        self._checkpoint.write(self._fold.dump())
        self._saved = self._fold.version
        self.interval = max(SHORTEST, _SHARE * (self._clock() - begin))
        return True
