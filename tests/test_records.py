"""The channel between relay and observer: every message survives it, however it is cut, and nothing else gets in."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields
from samples import STREAMED, WHO

from exporter import catalog, counting
from exporter.core.outcome import ErrorType, Outcome
from exporter.core.phases import Phase, Source
from exporter.core.tally import Tally
from exporter.core.timeline import Identity, Timeline, Usage
from exporter.records import (
    MAX_FRAME,
    Ack,
    CaughtUp,
    Ended,
    Frames,
    Hello,
    Live,
    Message,
    Opened,
    Pulse,
    frame,
    pulse_tally,
    tally_rows,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
number = st.integers(0, 2**53)
moment = st.floats(0, 1e9)
labels = st.lists(text, max_size=5).map(tuple)
identities = st.builds(Identity, text, st.none() | text, text, st.booleans(), text, text, labels=labels)
phases = st.none() | st.builds(Phase, moment, st.sampled_from(Source))
maybe = st.none() | moment
usages = st.builds(Usage, *[st.none() | number] * 4)
timelines = st.builds(
    Timeline,
    identities,
    moment,
    moment,
    st.sampled_from(Outcome),
    st.sampled_from(ErrorType),
    st.none() | st.integers(100, 599),
    maybe,
    maybe,
    maybe,
    phases,
    phases,
    st.lists(moment, max_size=3).map(tuple),
    usages,
    finish_reasons=labels,
    conflicts=labels,
    reported_queueing=maybe,
)
counters = st.lists(st.tuples(text, labels, st.floats(0, 1e15)), max_size=3)
histograms = st.lists(
    st.tuples(text, labels, st.dictionaries(st.integers(0, 999), number, max_size=3), moment), max_size=3
)
lives = st.builds(Live, labels, st.dictionaries(text, st.tuples(number, moment), max_size=3), maybe)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, number, text, number, moment, moment),
    st.builds(
        Pulse,
        number,
        moment,
        st.lists(lives, max_size=3),
        st.lists(st.builds(Opened, identities, moment), max_size=3),
        st.lists(text, max_size=3),
        counters,
        histograms,
    ),
    st.builds(Ended, number, timelines),
    st.builds(CaughtUp),
    st.builds(Ack, number),
)


def fed(*pieces: bytes) -> list[Message]:
    frames = Frames()
    return [message for piece in pieces for message in frames.feed(piece)]


@given(st.lists(messages, max_size=4), st.data())
def test_messages_survive_whole_by_bytes_and_at_any_cut(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(frame, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(stream) == sent
    assert fed(*pieces) == sent
    assert fed(*(stream[at : at + 1] for at in range(len(stream)))) == sent


def test_a_message_is_given_as_soon_as_its_last_byte_is_there() -> None:
    frames, stream = Frames(), frame(Ack(7)) + frame(Ack(8))
    half = len(frame(Ack(7)))
    assert frames.feed(stream[: half - 1]) == []
    assert frames.feed(stream[half - 1 : half + 3]) == [Ack(7)]
    assert frames.feed(stream[half + 3 :]) == [Ack(8)]


def test_every_field_of_a_timeline_survives() -> None:
    (ended,) = fed(frame(Ended(1, STREAMED)))
    assert isinstance(ended, Ended)
    for field in fields(Timeline):
        assert getattr(ended.timeline, field.name) == getattr(STREAMED, field.name)
        assert type(getattr(ended.timeline, field.name)) is type(getattr(STREAMED, field.name))


def test_a_frame_that_is_too_long_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(ValueError, match=f"frame of {MAX_FRAME + 1} bytes, at most {MAX_FRAME} are accepted"):
        Frames().feed(struct.pack(">I", MAX_FRAME + 1))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xc1\xc1\xc1", "frame of 3 bytes is not a message"),
        (b"", "frame of 0 bytes is not a message"),
        (b"\x92\xa5Pulse\x01", "frame of 8 bytes is not a message"),
        (b"\x92\xa6Hacked\x01", "frame of 9 bytes is not a message: Invalid value 'Hacked'"),
        (b"\x92\xa3Ack\xa3one", "frame of 9 bytes is not a message: Expected `int`, got `str`"),
        (b"\x92\xa3Ack\x01\x01", "frame of 7 bytes is not a message: MessagePack data is malformed"),
    ],
)
def test_what_is_not_a_message_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Frames().feed(struct.pack(">I", len(body)) + body)


def refusal(body: bytes) -> str:
    """Why the frame of this body is refused, or nothing."""
    try:
        Frames().feed(struct.pack(">I", len(body)) + body)
    except ValueError as error:
        return str(error)
    return ""


@given(st.binary(max_size=64))
def test_garbage_is_refused_with_its_length_and_nothing_worse(garbage: bytes) -> None:
    reason = refusal(garbage)
    assert not reason or reason.startswith(f"frame of {len(garbage)} bytes is not a message: ")


def test_text_that_is_not_text_and_endless_nesting_are_refused_alike() -> None:
    assert "codec can't decode" in refusal(b"\x91\xa1\x80")
    assert "recursion" in refusal(b"\x93\xa3Ack\x01" + b"\x91" * 5000)


def test_a_tally_comes_back_out_of_the_pulse_that_carried_it() -> None:
    tally = Tally()
    counting.add(STREAMED, tally)
    tally.observe_all(catalog.ITL, counting.base_labels(WHO), catalog.grid(catalog.ITL), [0.02, 0.02, 0.5])
    (pulse,) = fed(frame(Pulse(1, 100.0, [], [], [], *tally_rows(tally))))
    assert isinstance(pulse, Pulse)
    assert pulse_tally(pulse) == tally
