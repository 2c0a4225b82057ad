"""Reads that are understood later are counted as if they had been understood at once."""

import pytest
from support.replay import asking, chunk, content, event, exchange, finish, stream

from exporter.core.outcome import Outcome
from exporter.exchange import Exchange

TOKEN = event(chunk(content("x")))


def read(followed: Exchange, at: float, data: bytes) -> None:
    followed.forward(data)
    followed.observe(at, data)


def test_a_stall_is_recorded_after_the_reads_before_it() -> None:
    gaps: list[float] = []
    followed = exchange(gaps)
    followed.request(0.0, asking())
    followed.response(200, [(b"content-type", b"text/event-stream")])
    for at in (1.0, 1.1):
        read(followed, at, TOKEN)
    followed.stalled(1.2, 5.0)
    for at in (5.0, 5.1, 5.2):
        read(followed, at, TOKEN)
    read(followed, 5.3, event(chunk(finish())))
    timeline = followed.end(5.4)
    assert timeline is not None
    assert gaps == pytest.approx([0.1, 0.1, 0.1])
    assert timeline.stalled == pytest.approx(3.8)
    assert timeline.tpot == pytest.approx(0.1)


@pytest.mark.parametrize("reads", range(1, 20))
def test_however_many_reads_wait_their_moments_are_their_own(reads: int) -> None:
    gaps: list[float] = []
    followed = exchange(gaps)
    followed.request(0.0, asking())
    followed.response(200, [(b"content-type", b"text/event-stream")])
    for number in range(reads):
        read(followed, 1.0 + number / 10, TOKEN)
    followed.catch_up()
    assert followed.recorder.seen == reads
    timeline = followed.cancelled(99.0)
    assert timeline is not None
    assert timeline.outcome is Outcome.CANCELLED
    assert timeline.ttft == 1.0
    assert gaps[: reads - 1] == pytest.approx([0.1] * (reads - 1))


def test_the_answers_to_whether_a_token_is_waited_for_are_never_late() -> None:
    followed = exchange()
    followed.request(0.0, asking())
    assert followed.waits
    followed.response(200, [(b"content-type", b"text/event-stream")])
    assert followed.waits
    for at, data in stream(TOKEN):
        read(followed, at, data)
    followed.catch_up()  # the tick does, before it looks
    assert not followed.waits
