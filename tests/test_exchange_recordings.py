"""Answers of real servers, followed: what is learned does not depend on where the network cut them."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recordings import Recording, read, recordings
from support.replay import Played, bytewise, cut, replay, timeless

from exporter.exchange import operation

GOLDEN = Path(__file__).parent / "golden" / "exchange.json"

FOLLOWED = [one for one in recordings() if operation(one.method, one.path)]
each = pytest.mark.parametrize("recording", FOLLOWED, ids=lambda one: one.name)


def learned(played: Played) -> dict[str, object]:
    """What the golden file says of a recording; durations in milliseconds, since the recordings' moments are."""
    told, usage = played.timeline, played.timeline.usage
    return {
        "stream": told.identity.stream,
        "model": told.identity.model,
        "response_model": told.response_model,
        "response_id": told.response_id,
        "outcome": told.outcome,
        "error_type": told.error_type,
        "status": told.status,
        "finish_reasons": told.finish_reasons,
        "events": told.events,
        "input": usage.input,
        "output": usage.output,
        "cached_input": usage.cached_input,
        "reasoning_output": usage.reasoning_output,
        "estimated": told.estimated,
        "ttft_ms": milliseconds(told.ttft),
        "decode_ms": milliseconds(told.decode),
        "tpot_ms": [milliseconds(tpot) for tpot in told.tpots],
        "gaps": len(played.gaps),
        "latency_ms": milliseconds(told.latency),
        "uninspected": played.exchange.uninspected,
    }


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def test_every_recording_of_a_followed_route_is_in_the_golden_file() -> None:
    found = {recording.name: learned(replay(recording)) for recording in FOLLOWED}
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "UPDATE_GOLDEN=1 accepts the change"


@each
def test_the_client_gets_the_engines_bytes(recording: Recording) -> None:
    assert replay(recording).forwarded == recording.body


@each
def test_whole_and_byte_by_byte_give_the_same(recording: Recording) -> None:
    expected = timeless(replay(recording).timeline)
    for reads in (cut(recording.body, []), bytewise(recording.body[-20_000:])):
        if len(recording.body) > 20_000 and len(reads) > 1:
            reads[0] = (reads[0][0], recording.body[:-20_000] + reads[0][1])  # the rest of a long one in one piece
        played = replay(recording, reads)
        assert played.forwarded == recording.body
        assert timeless(played.timeline) == expected


@given(st.data())
@settings(max_examples=200)
def test_no_cut_changes_what_is_learned(data: st.DataObject) -> None:
    recording = data.draw(st.sampled_from(FOLLOWED))
    places = data.draw(st.lists(st.integers(0, len(recording.body)), max_size=12))
    played = replay(recording, cut(recording.body, places, step=0.5))
    assert played.forwarded == recording.body
    assert timeless(played.timeline) == timeless(replay(recording).timeline)


def test_segments_are_cut_by_their_length(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n"
    path = tmp_path / "made.txt"
    path.write_bytes(
        b'##### REQUEST POST http://127.0.0.1:1/v1/completions\nX-Request-Id: r\n{"a":1}\n##### RESPONSE raw\n'
        b"--- +1.50ms %dB\n%b\n--- +2.50ms 22B\n--- +9ms 1B\n##### END\n\n##### END\n" % (len(answer), answer)
    )
    (one,) = read(path)
    assert (one.name, one.path, one.request, one.status) == ("made", b"/v1/completions", b'{"a":1}', 200)
    assert one.request_headers == [(b"x-request-id", b"r")]
    assert [(piece.after, piece.body) for piece in one.pieces] == [(0.0025, b"--- +9ms 1B\n##### END\n")]


def test_a_recording_that_is_cut_wrongly_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.txt"
    path.write_bytes(b"##### REQUEST GET http://h/\n\n##### RESPONSE raw\n--- +1ms 9B\nshort\n##### END\n")
    with pytest.raises(ValueError, match=r"made\.txt, byte .* does not end after 9 bytes"):
        read(path)
