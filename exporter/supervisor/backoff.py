"""How long to wait before a child is started again: doubling, and from the beginning after a life long enough."""

from exporter.supervisor.rhythm import Rhythm


class Backoff:
    """The delays of one slot."""

    def __init__(self, rhythm: Rhythm) -> None:
        """No failure yet."""
        self._rhythm = rhythm
        self._failures = 0

    def after(self, life: float) -> float:
        """The delay in seconds after a child that lived for ``life`` seconds."""
        if life >= self._rhythm.settled_after:
            self._failures = 0
        delay = min(self._rhythm.backoff_first * 2.0**self._failures, self._rhythm.backoff_last)
        self._failures = min(self._failures + 1, 64)
        return delay
