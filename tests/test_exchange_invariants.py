"""What holds for every answer that could be."""

from dataclasses import dataclass
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.replay import (
    DONE,
    asking,
    chunk,
    content,
    counts,
    cut,
    delta,
    event,
    finish,
    play,
    role,
    timeless,
    usage,
)

from exporter.core.outcome import Outcome

ASKED = asking(stream_options={"include_usage": True})

ticks = st.integers(0, 4096).map(lambda count: count / 1024)  # exact in binary, so sums are too
indices = st.integers(0, 2)
words = st.text(min_size=1, max_size=4)
line_ends = st.sampled_from(["\n", "\r\n", "\r"])


@dataclass(frozen=True)
class Said:
    """One event of a generated answer, and the choice for which it bears tokens."""

    data: dict[str, object] | str
    token: int | None = None


tokens = st.builds(
    lambda index, name, text: Said(chunk(delta(index, **{name: text})), index),
    indices,
    st.sampled_from(["content", "content", "content", "reasoning", "reasoning_content", "refusal"]),
    words,
)
calls = st.builds(
    lambda index, text: Said(chunk(delta(index, tool_calls=[{"index": 0, "function": {"arguments": text}}])), index),
    indices,
    words,
)
silent = st.one_of(
    st.builds(lambda index: Said(chunk(role(index))), indices),
    st.builds(lambda index: Said(chunk(content("", index))), indices),
    st.builds(lambda index, reason: Said(chunk(finish(reason, index))), indices, st.sampled_from(["stop", "length"])),
    st.builds(lambda output: Said(usage(output)), st.integers(0, 99)),
    st.sampled_from([Said("[DONE]"), Said(""), Said("{broken"), Said(chunk()), Said(chunk(usage=None))]),
)
errors = st.just(Said({"error": {"message": "no"}}))
answers = st.lists(tokens | tokens | calls | silent | errors, max_size=12)
of_one_choice = st.lists(tokens.filter(lambda said: said.token == 0) | silent, max_size=12)
cuts = st.lists(st.integers(0, 3000), max_size=8)


def written(answer: list[Said], line_end: str) -> bytes:
    return b"".join(event(said.data, line_end) for said in answer)


def in_reads(body: bytes, where: list[int], moments: list[float]) -> list[tuple[float, bytes]]:
    """The body cut at some places; the reads come ``moments`` after each other, and then at once."""
    steps = accumulate([*moments, *([0.0] * len(where))], initial=0.0)
    return [(at + step, read) for (at, read), step in zip(cut(body, where), steps, strict=False)]


@given(answers, line_ends, cuts, st.lists(ticks, max_size=12))
@settings(max_examples=200)
def test_phases_are_contiguous_and_nothing_is_invented(
    answer: list[Said], line_end: str, where: list[int], moments: list[float]
) -> None:
    played = play(in_reads(written(answer, line_end), where, moments), ASKED)
    timeline = played.timeline
    assert timeline.events == sum(said.token is not None for said in answer)
    assert timeline.latency >= 0
    if not timeline.events:
        assert (timeline.ttft, timeline.decode, timeline.queueing, timeline.prefill) == (None,) * 4
        assert (timeline.first_answer, timeline.tpots, played.gaps, timeline.estimated) == (None, (), [], False)
        return
    assert timeline.ttft is not None
    assert timeline.decode is not None
    assert timeline.queueing is not None
    assert timeline.prefill is not None
    assert timeline.queueing.seconds + timeline.prefill.seconds == timeline.ttft
    assert 0 <= timeline.ttft + timeline.decode <= timeline.latency


@given(of_one_choice, line_ends, cuts, st.lists(ticks, max_size=12))
@settings(max_examples=200)
def test_the_gaps_of_one_choice_sum_to_its_decode(
    answer: list[Said], line_end: str, where: list[int], moments: list[float]
) -> None:
    played = play([*in_reads(written(answer, line_end), where, moments)], ASKED)
    timeline = played.timeline
    events = sum(said.token is not None for said in answer)
    silence = 0.0
    if timeline.outcome not in {Outcome.COMPLETED, Outcome.LENGTH} and timeline.last_token is not None:
        silence = timeline.end - timeline.last_token  # the open gap of a bad end
        events += 1
    assert sum(played.gaps) == (timeline.decode or 0.0) + silence
    assert len(played.gaps) == max(0, events - 1)


@given(answers, line_ends, cuts, cuts, st.booleans())
@settings(max_examples=200)
def test_what_is_sent_and_learned_does_not_depend_on_the_cuts(
    answer: list[Said], line_end: str, one: list[int], other: list[int], injected: bool
) -> None:
    body = written(answer, line_end)
    request = asking() if injected else ASKED
    first, second = (play(in_reads(body, where, []), request) for where in (one, other))
    assert first.forwarded == second.forwarded
    assert timeless(first.timeline) == timeless(second.timeline)
    if not injected:
        assert first.forwarded == body


@given(answers, line_ends, cuts)
def test_only_chunks_without_choices_are_ever_taken_out(answer: list[Said], line_end: str, where: list[int]) -> None:
    kept = [said for said in answer if not (isinstance(said.data, dict) and _is_usage(said.data))]
    played = play(in_reads(written(answer, line_end), where, []))
    assert played.forwarded == written(kept, line_end)


def _is_usage(data: dict[str, object]) -> bool:
    return data.get("choices") == [] and isinstance(data.get("usage"), dict)


@given(st.lists(st.tuples(words, st.integers(0, 5)), min_size=1, max_size=12), st.lists(ticks, max_size=12))
def test_running_counts_are_exact(said: list[tuple[str, int]], moments: list[float]) -> None:
    total = 0
    reads: list[tuple[float, bytes]] = []
    steps = [*moments, *([0.5] * len(said))]
    for (text, count), at in zip(said, accumulate(steps, initial=1.0), strict=False):
        total += count if reads else count + 1
        reads.append((at, event(chunk(content(text), usage=counts(total)))))
    end = reads[-1][0]
    played = play([*reads, (end, event(chunk(finish())) + event(usage(total)) + DONE)], ASKED)
    first = said[0][1] + 1
    assert played.timeline.usage.output == total
    assert len(played.gaps) == total - first
    counted = [at for (at, _), (_, count) in zip(reads[1:], said[1:], strict=True) if count]
    assert sum(played.gaps) == pytest.approx((counted[-1] if counted else reads[0][0]) - reads[0][0])
