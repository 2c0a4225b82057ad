"""Whatever comes: no exception, no token out of nothing, and the client gets its bytes."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from support.recordings import Headers, recordings
from support.replay import JSON, STREAM, Played, asking, cut, exchange, give

from exporter.core.outcome import ErrorType, Outcome

ASKED = asking(stream_options={"include_usage": True})
SMALL = [one for one in recordings() if one.status == 200 and len(one.body) < 8000]

parts = st.sampled_from(
    [
        *(b"data: ", b"data:", b"event: error", b"error: ", b"\n", b"\r", b"\r\n", b"\n\n", b"[DONE]", b"\xef\xbb\xbf"),
        *(b"{", b"}", b"[", b"]", b":", b",", b'"usage"', b'"choices"', b"null", b"1e999", b"-1", b"9" * 400),
        *(b'{"choices":[', b'{"index":0,"delta":{"content":"a"}}', b'"finish_reason":"stop"', b"\xff", b'"\\ud800"'),
        b'{"choices":[],"usage":{"completion_tokens":3}}',
    ]
)
garbage = st.binary(max_size=300) | st.lists(parts, max_size=30).map(b"".join)


@dataclass(frozen=True)
class Case:
    """A request, an answer in pieces, and how it ends."""

    request: bytes
    body: bytes
    places: list[int]
    ending: str
    status: int = 200
    headers: Headers | None = None

    def play(self) -> Played:
        """All of it."""
        gaps: list[float] = []
        followed = exchange(gaps)
        sent = followed.request(0.0, self.request)
        reads = cut(self.body, self.places, step=0.5)
        forwarded = give(followed, reads, self.status, STREAM if self.headers is None else self.headers)
        if self.ending == "end":
            forwarded += followed.rest()
            timeline = followed.end(99.0)
        elif self.ending == "cancelled":
            timeline = followed.cancelled(99.0)
        else:
            timeline = followed.failed(99.0, Outcome.FAILED, ErrorType.RESET)
        assert timeline is not None
        return Played(followed, sent, forwarded, timeline, gaps)


endings = st.sampled_from(["end", "cancelled", "failed"])
places = st.lists(st.integers(0, 8000), max_size=8)
cases = st.builds(
    Case,
    garbage | st.sampled_from([asking(), ASKED]),
    garbage,
    places,
    endings,
    st.sampled_from([200, 200, 200, 204, 302, 400, 429, 500, 503]),
    st.sampled_from([STREAM, JSON, [], [*STREAM, (b"content-encoding", b"gzip")]]),
)


@st.composite
def broken(draw: st.DrawFn) -> Case:
    """A recording in which some bytes were lost, changed or added."""
    recording = draw(st.sampled_from(SMALL))
    body = bytearray(recording.body)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 40)))
        body[start:end] = draw(garbage)[:40]
    request = draw(st.sampled_from([recording.request, asking(), ASKED]))
    return Case(request, bytes(body), draw(places), draw(endings), headers=recording.headers)


@given(cases | broken())
@settings(max_examples=500)
def test_nothing_raises_and_nothing_is_invented(case: Case) -> None:
    played = case.play()
    timeline = played.timeline
    assert timeline.latency == 99.0
    assert timeline.usage.output is None or timeline.usage.output >= 0
    assert (timeline.ttft is None) == (timeline.events == 0)
    assert len(timeline.tpots) <= max(0, timeline.events - 1)
    assert all(gap >= 0 for gap in played.gaps)
    if case.ending == "end" and not played.exchange.injected:
        assert played.forwarded == case.body
