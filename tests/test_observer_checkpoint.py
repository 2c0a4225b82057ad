"""The checkpoint: whatever moment the observer is killed at, totals stay exactly once."""

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from samples import STREAMED

from exporter import catalog, records
from exporter.core.recorder import Recorder
from exporter.core.timeline import Timeline
from exporter.observer.checkpoint import Checkpoint, FdFile
from exporter.observer.fold import Fold
from exporter.observer.keeper import SHORTEST, Keeper
from exporter.observer.session import Session
from exporter.records import Ack, Frames, Hello
from exporter.relay.reporter import Reporter

KEY = (0, "boot")


class KilledError(Exception):
    """The process ended here."""


class Memory:
    """A file that is cut off after so many more written bytes, wherever that falls."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.left: int | None = None

    def read(self, size: int, offset: int) -> bytes:
        return bytes(self.bytes[offset : offset + size])

    def write(self, data: bytes, offset: int) -> None:
        written = data if self.left is None else data[: self.left]
        if len(self.bytes) < offset + len(written):
            self.bytes.extend(bytes(offset + len(written) - len(self.bytes)))
        self.bytes[offset : offset + len(written)] = written
        if self.left is not None:
            self.left -= len(written)
            if len(written) < len(data):
                raise KilledError


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 400)), max_size=20))
def test_after_a_kill_anywhere_the_newest_whole_version_is_found(writes: list[tuple[bytes, int]]) -> None:
    file = Memory()
    kept: bytes | None = None
    checkpoint = Checkpoint(file)
    for data, budget in writes:
        file.left = budget
        try:
            checkpoint.write(data)
            kept = data
        except KilledError:
            file.left = None
            checkpoint = Checkpoint(file)
            assert checkpoint.take() == kept
    file.left = None
    assert Checkpoint(file).take() == kept


def test_the_file_does_not_grow_for_ever() -> None:
    file = Memory()
    checkpoint = Checkpoint(file)
    for number in range(1000):
        checkpoint.write(bytes(1000 + number % 7))
    assert len(file.bytes) < 4000
    assert Checkpoint(file).take() == bytes(1000 + 999 % 7)


def test_found_bytes_are_given_once_and_garbage_is_nothing() -> None:
    file = Memory()
    file.write(b"\x07" * 500, 0)
    checkpoint = Checkpoint(file)
    assert checkpoint.take() is None
    checkpoint.write(b"whole")
    again = Checkpoint(file)
    assert (again.take(), again.take()) == (b"whole", None)


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


def test_versions_live_in_a_memfd(memfd: int) -> None:
    for number in range(5):
        Checkpoint(FdFile(memfd)).write(b"x" * 100_000 * number)
    assert Checkpoint(FdFile(memfd)).take() == b"x" * 400_000


def test_a_checkpoint_that_costs_much_is_written_seldom() -> None:
    ticks = iter([0.0, 0.1, 1.0, 1.001])
    fold = Fold()
    keeper = Keeper(fold, Checkpoint(Memory()), lambda: next(ticks))
    assert keeper.save()
    assert keeper.interval == pytest.approx(2.0)
    assert not keeper.save()
    fold.count(catalog.REPLAYS)
    assert keeper.save()
    assert keeper.interval == SHORTEST


class Pipe:
    """What a relay has written and the observer has not read yet."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.full = False

    def write(self, data: bytes) -> None:
        self.bytes += data


class World:
    """A real reporter with its ring, a real fold with its checkpoint, and kills in between."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ended = self.ticked = self.number = 0
        self.file = Memory()
        self.gaps: list[float] = []
        self.reporter = Reporter(lambda: Hello(*KEY, 1, 1e9, 0.0), lambda: None)
        self.live: list[Recorder] = []
        self.start()

    def start(self) -> None:
        """A fresh observer with a fresh channel."""
        self.fold = Fold()
        checkpoint = Checkpoint(self.file)
        found = checkpoint.take()
        if found is not None:
            self.fold.load(found)
        self.fold.keep({KEY})
        self.keeper = Keeper(self.fold, checkpoint, lambda: 0.0)
        self.session = Session(self.fold, KEY)
        self.pipe = Pipe()
        self.reporter.connected(self.pipe)

    def read(self, size: int) -> None:
        """The observer reads so many bytes, and answers a Hello among them."""
        greeted = self.session.greeted
        self.session.feed(bytes(self.pipe.bytes[:size]))
        del self.pipe.bytes[:size]
        if self.session.greeted and not greeted:
            self.save(None)
            self.acknowledge()

    def save(self, budget: int | None) -> None:
        """Write the checkpoint; with a budget of bytes the process may die in it, and another one starts."""
        self.file.left = budget
        try:
            if self.keeper.save():
                self.acknowledge()
        except KilledError:
            self.file.left = None
            self.start()
        self.file.left = None

    def acknowledge(self) -> None:
        ack = records.frame(Ack(self.fold.folded(KEY)))
        for message in Frames().feed(ack):
            assert isinstance(message, Ack)
            self.reporter.acknowledged(message.number)

    def open(self) -> None:
        self.number += 1
        identity = replace(STREAMED.identity, span_id=f"{self.number:016x}")
        recorder = Recorder(identity, self.now, self.gaps)
        self.live.append(recorder)
        self.reporter.opened(recorder)

    def token(self) -> None:
        for recorder in self.live:
            recorder.token(self.now, count=1)
            self.ticked += 1

    def end(self) -> None:
        if self.live:
            recorder = self.live.pop()
            timeline = recorder.finish(self.now, STREAMED.outcome, status=200)
            assert isinstance(timeline, Timeline)
            self.reporter.ended(recorder, timeline)
            self.reporter.flush()
            self.ended += 1

    def step(self, what: str, size: int) -> None:
        self.now += 0.1
        if what == "pulse":
            self.reporter.pulse(self.now)
        elif what == "read":
            self.read(size)
        elif what == "save":
            self.save(None)
        elif what == "killed while saving":
            self.save(size)
        elif what == "killed":
            self.start()
        else:
            getattr(self, what)()


STEPS = st.tuples(
    st.sampled_from(["open", "token", "end", "pulse", "read", "read", "save", "killed while saving", "killed"]),
    st.integers(0, 3000),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(STEPS, max_size=60))
def test_whatever_dies_when_every_request_and_token_is_counted_once(steps: list[tuple[str, int]]) -> None:
    world = World()
    for what, size in steps:
        world.step(what, size)
    while world.live:
        world.end()
    world.reporter.pulse(world.now)
    for _ in range(3):
        world.read(len(world.pipe.bytes))
    assert world.session.caught_up
    totals = world.fold.totals.totals.counters
    requests = sum(count for (name, _), count in totals.items() if name == catalog.REQUESTS)
    tokens = sum(count for (name, labels), count in totals.items() if name == catalog.TOKENS and "output" in labels)
    assert (requests, tokens) == (world.ended, world.ticked)
    assert world.fold.relays[KEY].opened == {}
    world.save(None)
    with suppress(KilledError):
        world.start()
    assert world.fold.totals.totals.counters == totals
