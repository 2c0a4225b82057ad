"""What is too large to be followed is relayed untouched, said so, and not kept."""

import tracemalloc

import pytest
from support.replay import (
    JSON,
    STREAM,
    asking,
    chunk,
    content,
    counts,
    event,
    exchange,
    finish,
    give,
    play,
    stream,
    usage,
)

from exporter import exchange as exchanges
from exporter.core.outcome import Outcome

ASKED = asking(stream_options={"include_usage": True})
LIMIT = 4096


@pytest.fixture(autouse=True)
def small_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "EVENT_LIMIT", LIMIT)


def in_reads(*parts: bytes, size: int = 1000) -> list[tuple[float, bytes]]:
    body = b"".join(parts)
    return [(1.0 + start / size, body[start : start + size]) for start in range(0, len(body), size)]


@pytest.mark.parametrize("request_body", [asking(), ASKED], ids=["filtered", "not filtered"])
def test_an_event_over_the_limit_goes_through_and_ends_the_following(request_body: bytes) -> None:
    before = [event(chunk(content("a"))), event(chunk(content("b")))]
    after = [event(chunk(content("x" * 3 * LIMIT))), event(chunk(content("c"))), event(chunk(finish()))]
    played = play(in_reads(*before, *after), request_body)
    assert played.forwarded == b"".join([*before, *after])
    assert played.exchange.uninspected == ["event_too_large"]
    timeline = played.timeline
    assert timeline.outcome is Outcome.COMPLETED
    assert (timeline.events, timeline.usage.output, timeline.estimated) == (2, 2, True)


def test_a_usage_chunk_after_the_limit_is_the_clients_for_it_cannot_be_found_any_more() -> None:
    parts = [event(chunk(content("x" * 3 * LIMIT))), event(chunk(finish())), event(usage(3))]
    assert play(in_reads(*parts)).forwarded == b"".join(parts)


def test_tokens_that_were_counted_before_the_limit_are_an_estimate() -> None:
    said = [event(chunk(content("a"), usage=counts(2))), event(chunk(content("b"), usage=counts(4)))]
    played = play(in_reads(*said, event(chunk(content("x" * 3 * LIMIT)))), ASKED)
    assert (played.timeline.usage.output, played.timeline.estimated) == (4, True)


def test_silence_that_only_we_heard_is_no_gap() -> None:
    gaps: list[float] = []
    followed = exchange(gaps)
    followed.request(0.0, asking())
    give(followed, in_reads(event(chunk(content("a"))), event(chunk(content("x" * 3 * LIMIT)))))
    timeline = followed.cancelled(900.0)
    assert timeline is not None
    assert timeline.outcome is Outcome.CANCELLED
    assert gaps == []


@pytest.mark.parametrize("size", [LIMIT - 200, LIMIT * 3])
def test_an_event_that_comes_in_one_read_may_be_of_any_size(size: int) -> None:
    played = play(stream(chunk(content("x" * size)), chunk(content("b")), chunk(finish())))
    assert played.exchange.uninspected == []
    assert played.timeline.events == 2


def test_events_together_may_be_of_any_size() -> None:
    said = [event(chunk(content("x" * 900)))] * 50
    played = play(in_reads(*said, event(chunk(finish())), size=997))
    assert played.exchange.uninspected == []
    assert played.timeline.events == 50


def test_a_whole_answer_over_the_limit_goes_through_unread() -> None:
    body = b'{"usage":{"completion_tokens":7},"x":"' + b"x" * 5000 + b'"}'
    reads = in_reads(body)
    played = play(reads, headers=JSON, inspect_limit=len(body) - 1)
    assert played.forwarded == body
    assert played.exchange.uninspected == ["answer_too_large"]
    assert played.timeline.outcome is Outcome.COMPLETED
    assert played.timeline.usage.output is None
    assert play(reads, headers=JSON, inspect_limit=len(body)).timeline.usage.output == 7


def held_after(headers: list[tuple[bytes, bytes]], part: bytes) -> int:
    """Bytes that an exchange holds after 4 MiB of an answer."""
    gaps: list[float] = []
    followed = exchange(gaps, inspect_limit=100_000)
    followed.request(0.0, asking())
    followed.response(200, headers)
    tracemalloc.start()
    for number in range(4 * 1024 * 1024 // len(part)):
        read = bytes(bytearray(part))  # a new one each time, as from a socket
        followed.forward(read)
        followed.observe(1.0 + number, read)
        gaps.clear()  # as each pulse does
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


@pytest.mark.parametrize("headers", [JSON, STREAM], ids=["whole", "stream"])
def test_nothing_is_kept_of_what_is_too_large(headers: list[tuple[bytes, bytes]]) -> None:
    assert held_after(headers, b"x" * 8192) < 64 * 1024


def test_a_long_stream_takes_no_more_memory_than_a_short_one() -> None:
    assert held_after(STREAM, event(chunk(content("x" * 1000)))) < 64 * 1024
