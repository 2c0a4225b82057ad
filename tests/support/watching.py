"""Watches a sidecar whose observer is killed: every scrape beside the one before, and the checkpoint itself."""

import threading
import time
import urllib.error
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Self

from exporter.observer.checkpoint import Checkpoint
from exporter.observer.fold import Fold
from support.exposition import Page
from support.sidecar import Sidecar

CHECKPOINT = "inference-exporter-checkpoint"
Totals = dict[tuple[str, tuple[tuple[str, str], ...]], float]
OF_ONE_PROCESS = ("process_", "python_")
"""The observer's own: its process is a new one after a restart, and says so."""


def totals(page: Page) -> Totals:
    """Every sample that must never go back: counters, and buckets, counts and sums of histograms."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for one in page.samples
        if one.name.endswith(("_total", "_bucket", "_count", "_sum")) and not one.name.startswith(OF_ONE_PROCESS)
    }


class Scraper:
    """Scrapes again and again; a connection that breaks with the observer is made again, an answer must be right."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._url = f"{sidecar.web}/metrics"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.pages: list[Totals] = []
        self.refused: list[int] = []
        self.longest = 0.0
        """Seconds between two scrapes that were answered, at most."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        alive = self._thread.is_alive()
        self._ended.set()
        self._thread.join(30)
        assert alive, "the scraper failed"

    def backwards(self) -> list[str]:
        """Every sample that was less, or gone, in the next scrape."""
        return [
            f"{key}: {value!r} then {after.get(key)!r}"
            for before, after in zip(self.pages, self.pages[1:], strict=False)
            for key, value in before.items()
            if after.get(key, -1.0) < value
        ]

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(0.02):
            try:
                self.pages.append(totals(Page.scrape(self._url)))
            except urllib.error.HTTPError as refused:
                self.refused.append(refused.code)
                continue
            except (OSError, HTTPException):  # its connection broke with the observer
                continue
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now


class _Readable:
    """Bytes in the place of a checkpoint's file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, offset: int) -> bytes:
        return self._data[offset : offset + size]

    def write(self, data: bytes, offset: int) -> None:
        raise PermissionError("a saved checkpoint is only looked at")


def _checkpoint_file(pid: int) -> Path:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if CHECKPOINT in str(link.readlink()):
                return link
    raise AssertionError(f"process {pid} has no checkpoint")


def saved(sidecar: Sidecar) -> Fold:
    """What a new observer would begin with: the checkpoint, as it lies in the supervisor's memory."""
    fold = Fold()
    data = Checkpoint(_Readable(_checkpoint_file(sidecar.pid).read_bytes())).take()
    if data is not None:
        fold.load(data)
    return fold


def opened(fold: Fold) -> int:
    """Requests that are known to be live."""
    return sum(len(relay.opened) for relay in fold.relays.values())


def counted(fold: Fold, name: str) -> float:
    """The sum of a counter, or the count of a histogram, over all series."""
    totals = fold.totals.totals
    amounts = [amount for (one, _), amount in totals.counters.items() if one == name]
    return sum(amounts) + sum(cells.count for (one, _), cells in totals.histograms.items() if one == name)
