"""Server-sent events: every line end, cut anywhere, gives the same events and loses no byte."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.wire import sse
from exporter.wire.sse import Event, Splitter

LINE_ENDS = (b"\n", b"\r\n", b"\r")
LIMIT = 1 << 20

each_line_end = pytest.mark.parametrize("end", LINE_ENDS, ids=["LF", "CRLF", "CR"])

lines = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data: \xd0\xba\xf0\x9f\x94\x91",
        b"data: [DONE] ",
        b"event: x",
        b": ping",
        b":",
        b"id: 1",
        b"data",
        b"error: e",
    ]
)
ends = st.sampled_from(LINE_ENDS)
bodies = st.lists(st.tuples(st.one_of(lines, lines, lines, st.just(b"")), ends), max_size=30).map(
    lambda parts: b"".join(line + end for line, end in parts)
)
places = st.lists(st.integers(0, 400), max_size=10)


def pieces(body: bytes, where: list[int]) -> list[bytes]:
    edges = sorted({0, len(body), *(place for place in where if place < len(body))})
    return [body[start:end] for start, end in pairwise(edges)]


def cut(reads: list[bytes]) -> tuple[list[bytes], bytes]:
    """The blocks of a stream, and what is held at its end."""
    splitter = Splitter(LIMIT)
    return [block for read in reads for block in splitter.feed(read)], splitter.held


def events(reads: list[bytes]) -> list[Event]:
    return [event for block in cut(reads)[0] if (event := sse.parse(block)) is not None]


@given(bodies, places)
def test_no_byte_is_lost_and_none_is_added(body: bytes, where: list[int]) -> None:
    blocks, held = cut(pieces(body, where))
    assert b"".join(blocks) + held == body


@given(bodies, places)
def test_the_events_are_the_same_wherever_the_stream_is_cut(body: bytes, where: list[int]) -> None:
    expected = events([bytes([byte]) for byte in body])
    assert events([body]) == expected
    assert events(pieces(body, where)) == expected


@given(st.binary(max_size=200), places)
def test_any_bytes_are_cut_without_an_error(body: bytes, where: list[int]) -> None:
    blocks, held = cut(pieces(body, where))
    assert b"".join(blocks) + held == body
    for block in [*blocks, held]:
        sse.parse(block)


@each_line_end
def test_an_event_is_complete_with_its_empty_line(end: bytes) -> None:
    splitter = Splitter(LIMIT)
    assert splitter.feed(b"data: a" + end) == []
    assert splitter.feed(b"") == []
    assert splitter.feed(end) == [b"data: a" + end + end]
    assert splitter.held == b""


@each_line_end
def test_several_events_of_one_read_are_several_blocks(end: bytes) -> None:
    one, two = b"data: a" + end + end, b": ping" + end + end
    assert Splitter(LIMIT).feed(one + two + one) == [one, two, one]


def test_line_ends_may_be_mixed_within_an_event() -> None:
    body = b"event: x\rdata: a\r\ndata: b\n\r\ndata: c\r\r\n"
    assert events([body]) == [("x", b"a\nb"), ("", b"c")]


def test_an_event_that_ends_with_cr_does_not_wait_for_an_lf() -> None:
    splitter = Splitter(LIMIT)
    assert splitter.feed(b"data: a\r\n\r") == [b"data: a\r\n\r"]
    assert splitter.feed(b"\n") == [b"\n"]
    assert splitter.feed(b"data: b\r\n\r\n") == [b"data: b\r\n\r\n"]


def test_the_late_lf_of_a_crlf_is_a_block_of_its_own() -> None:
    splitter = Splitter(LIMIT)
    splitter.feed(b"data: a\r\r")
    assert splitter.feed(b"\ndata: b\n\n") == [b"\n", b"data: b\n\n"]


def test_an_event_over_three_reads_inside_a_character_and_inside_its_field() -> None:
    body = "data: ключ\n\n".encode()
    assert events([body[:2], body[2:7], body[7:]]) == [("", "ключ".encode())]


@pytest.mark.parametrize(
    ("block", "event"),
    [
        (b"data: a\n\n", ("", b"a")),
        (b"data:a\n\n", ("", b"a")),
        (b"data:  a\n\n", ("", b" a")),
        (b"data: a \n\n", ("", b"a ")),
        (b"data: a\r\n\r\n", ("", b"a")),
        (b"data: a\r\r", ("", b"a")),
        (b"data: a\ndata: b\n\n", ("", b"a\nb")),
        (b"data: a\nid: 7\nretry: 5\n\n", ("", b"a")),
        (b"data: a\nid: 7\nretry: 5", ("", b"a")),
        (b"data: a\rb: c\r\n\r\n", ("", b"a")),
        (b"event: x\ndata: a\n\n", ("x", b"a")),
        (b"data: a\nevent:x\n\n", ("x", b"a")),
        (b'error: {"code":400}\n\n', ("error", b'{"code":400}')),
        (b"\xef\xbb\xbfdata: a\n\n", ("", b"a")),
        (b"data\n\n", ("", b"")),
        (b": keep-alive\ndata: a\n\n", ("", b"a")),
        (b'{"error":"text"}\n\n', ("", b'{"error":"text"}')),
        (b"data: a", ("", b"a")),
    ],
)  # fmt: skip
def test_what_an_event_says(block: bytes, event: Event) -> None:
    assert sse.parse(block) == event


@pytest.mark.parametrize("block", [b":\n\n", b": keep-alive\n\n", b"\n\n", b"\r\n\r\n", b"\n", b"event: x\n\n", b""])
def test_what_is_no_event(block: bytes) -> None:
    assert sse.parse(block) is None


def test_an_event_larger_than_the_limit_is_over_it() -> None:
    splitter = Splitter(10)
    splitter.feed(b"data: 6789")
    assert not splitter.over
    splitter.feed(b"a")
    assert splitter.over
    assert splitter.held == b"data: 6789a"


def test_what_is_complete_is_not_held_whatever_its_size() -> None:
    splitter = Splitter(10)
    assert splitter.feed(b"data: 0123456789\n\ndata: b") == [b"data: 0123456789\n\n"]
    assert not splitter.over
