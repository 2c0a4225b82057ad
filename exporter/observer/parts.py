"""What the observer is made of once it knows its configuration: fold, spans, checkpoint and channels, put together."""

import gc
import os
import time

from exporter import log
from exporter.control import StartObserver
from exporter.observer.access import AccessLog
from exporter.observer.channels import Channels
from exporter.observer.checkpoint import Checkpoint
from exporter.observer.fold import Fold
from exporter.observer.keeper import Keeper
from exporter.sinks import otel


class Parts:
    """The parts, restored from the checkpoint if it holds anything."""

    def __init__(self, start: StartObserver, checkpoint: Checkpoint) -> None:
        """Go on from ``checkpoint`` with the relays that ``start`` says are running."""
        self.config = start.config
        self.spans = otel.from_environment(os.environ)
        self.fold = self._restored(checkpoint.take())
        self.fold.keep(set(start.relays))
        self.keeper = Keeper(self.fold, checkpoint, time.monotonic)
        self.channels = Channels(self.fold, self.save, start.relays)

    def save(self) -> None:
        """Make everything that is folded safe, and tell the relays so."""
        if self.keeper.save():
            self.channels.acknowledge()

    def shed(self, *, shedding: bool) -> None:
        """Give up what can be given up, or stop doing so."""
        if self.spans is not None:
            self.spans.paused = shedding
        if shedding:
            self.fold.shed()
            gc.collect()

    def _restored(self, data: bytes | None) -> Fold:
        if data is None:
            return self._fold()
        fold = self._fold()
        try:
            fold.load(data)
        except ValueError as error:
            log.error("the checkpoint cannot be used, counters begin again", error=str(error))
            return self._fold()
        return fold

    def _fold(self) -> Fold:
        labels = tuple(header.label for header in self.config.label_headers)
        return Fold(self.config.models, labels, self.spans, AccessLog(self.config))
