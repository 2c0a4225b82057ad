"""Which of the names that clients write become labels, and what becomes of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from samples import STREAMED, WHO, streamed

from exporter import catalog, counting
from exporter.core.outcome import ErrorType, Outcome
from exporter.core.tally import Labels, Tally
from exporter.observer.admission import LONGEST, Admission, clean

MODEL = "gen_ai_request_model"


def admit(admission: Admission, model: str | None, status: int | None = 200, *headers: str) -> str | None:
    return admission.timeline(streamed(model, *headers, status=status)).identity.model


def base(model: str, *headers: str) -> Labels:
    return ("chat", model, "vllm", *headers)


def folded(admission: Admission) -> dict[str, float]:
    return {labels[0]: amount for (_, labels), amount in admission.folded().counters.items()}


def test_a_name_that_was_answered_is_admitted_and_stays() -> None:
    admission = Admission(())
    assert admit(admission, "m", 404) == "unknown"
    assert admit(admission, "m", None) == "unknown"
    assert admit(admission, "m", 200) == "m"
    assert admit(admission, "m", 404) == "m"
    assert admit(admission, "m", None) == "m"


@pytest.mark.parametrize("status", [None, 400, 401, 404, 429, 500, 503])
def test_an_unproved_name_is_unknown_whatever_happened(status: int | None) -> None:
    assert admit(Admission(()), "made-up", status) == "unknown"


@pytest.mark.parametrize("model", [None, ""])
def test_no_name_at_all_is_unknown_even_when_answered(model: str | None) -> None:
    admission = Admission(())
    assert admit(admission, model, 200) == "unknown"
    assert folded(admission) == {}


def test_names_of_the_operator_and_the_engine_need_no_proof() -> None:
    admission = Admission(("own",))
    admission.learn(["listed"])
    assert admit(admission, "own", 500) == "own"
    assert admit(admission, "listed", None) == "listed"


def test_names_beyond_the_limit_are_other_and_counted() -> None:
    admission = Admission((), limit=2)
    assert [admit(admission, name) for name in "abcab"] == ["a", "b", "other", "a", "b"]
    assert admit(admission, "c", 404) == "other"
    assert folded(admission) == {MODEL: 2}
    assert folded(admission) == {}


def test_names_that_the_engine_lists_take_a_place_only_when_used() -> None:
    admission = Admission((), limit=2)
    admission.learn(f"listed-{number}" for number in range(10_000))
    assert admit(admission, "listed-9") == "listed-9"
    assert admit(admission, "proved") == "proved"
    assert admit(admission, "listed-8") == "other"


def test_the_operators_names_have_their_places_however_many_they_are() -> None:
    admission = Admission(("a", "b", "c"), limit=2)
    assert [admit(admission, name) for name in "abcd"] == ["a", "b", "c", "other"]


def test_a_flood_of_names_that_are_all_answered_stays_bounded() -> None:
    admission = Admission((), limit=4)
    assert {admit(admission, f"name-{number}") for number in range(6000)} == {*(f"name-{n}" for n in range(4)), "other"}
    known, placed, _ = admission.dump()
    assert len(placed) == 4
    assert len(known) <= 4096


def test_tokens_in_a_pulse_prove_a_name_for_all_its_series() -> None:
    tally = Tally()
    tally.observe(catalog.LATENCY, (*base("m"), "failed", "reset"), catalog.grid(catalog.LATENCY), 1.0)
    tally.observe(catalog.ITL, base("m"), catalog.grid(catalog.ITL), 0.5)
    tally.inc(catalog.TOKENS, (*base("m"), "output"))
    found = Admission(()).tally(tally)
    assert {labels[1] for _, labels in (*found.counters, *found.histograms)} == {"m"}


@pytest.mark.parametrize(("status", "name"), [("200", "m"), ("404", "unknown"), ("", "unknown")])
def test_requests_counted_without_a_timeline_prove_a_name_by_their_status(status: str, name: str) -> None:
    tally = Tally()
    tally.inc(catalog.REQUESTS, (*base("m"), "completed", "", status, "true"))
    assert list(Admission(()).tally(tally).counters) == [
        (catalog.REQUESTS, (*base(name), "completed", "", status, "true"))
    ]


def test_a_pulse_folds_series_together_and_counts_the_requests_it_folded() -> None:
    admission, tally = Admission((), limit=1), Tally()
    for model in ("a", "b", "c"):
        tally.inc(catalog.REQUESTS, (*base(model), "completed", "", "200", "true"), 5)
        tally.observe(catalog.ITL, base(model), catalog.grid(catalog.ITL), 0.5)
    tally.inc(catalog.OVERCOUNT, (), 3)
    found = admission.tally(tally)
    assert found.counters[catalog.REQUESTS, (*base("other"), "completed", "", "200", "true")] == 10
    assert found.histograms[catalog.ITL, base("other")].count == 2
    assert found.counters[catalog.OVERCOUNT, ()] == 3
    assert folded(admission) == {MODEL: 10}


def test_live_requests_of_unproved_names_are_unknown_and_prove_nothing() -> None:
    admission = Admission((), ("tenant",), limit=1)
    assert admission.live(base("m", "blue")) == base("unknown", "blue")
    assert admit(admission, "m", 200, "blue") == "m"
    assert admission.live(base("m", "red")) == base("m", "other")
    assert folded(admission) == {}


def test_header_values_have_places_each_and_an_absent_one_takes_none() -> None:
    admission = Admission((), ("tenant", "region"), limit=1)
    seen = [
        admission.timeline(streamed("m", *values)).identity.labels
        for values in (("", ""), ("blue", ""), ("red", "eu"), ("blue", "us"), ("", "eu"))
    ]
    assert seen == [("", ""), ("blue", ""), ("other", "eu"), ("blue", "other"), ("", "eu")]
    assert folded(admission) == {"tenant": 1, "region": 1}


def test_only_names_are_changed() -> None:
    admission = Admission(("llama-3-8b",))
    assert admission.timeline(STREAMED) == STREAMED
    failed = replace(STREAMED, status=404, outcome=Outcome.INVALID, error_type=ErrorType.UPSTREAM_4XX)
    refused = replace(failed, identity=replace(WHO, model="made-up"))
    assert admission.timeline(refused) == replace(refused, identity=replace(WHO, model="unknown"))


def test_a_dump_brings_back_what_was_admitted() -> None:
    admission, again = (Admission((), ("tenant",), limit=2) for _ in range(2))
    admission.learn(["listed"])
    assert [admit(admission, name, 200, name) for name in "abc"] == ["a", "b", "other"]
    again.load(admission.dump())
    assert again.dump() == admission.dump()
    assert admit(again, "b", None, "b") == "b"
    assert admit(again, "listed", None, "a") == "other"


def test_what_is_not_a_dump_is_refused() -> None:
    with pytest.raises(ValueError, match="admission of 0 header labels, 1 are configured"):
        Admission((), ("tenant",)).load(Admission(()).dump())
    with pytest.raises(ValueError, match="Expected `array`"):
        Admission(()).load("nothing")


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("llama-3-8b", "llama-3-8b"),
        ("Größe/模型", "Größe/模型"),
        ("a\nb\x00\u2028\ud800", "a\\nb\\x00\\u2028\\ud800"),
        ("x" * 128, "x" * 128),
        ("x" * 129, "x" * 127 + "…"),
        ("\n" * 128, "\\n" * 63 + "\\" + "…"),
        ("x" * 10_000_000, "x" * 127 + "…"),
    ],
)
def test_a_value_is_made_printable_and_short(value: str, label: str) -> None:
    assert clean(value) == label


@given(st.text(st.characters()))
def test_a_clean_value_can_be_written_and_is_clean_already(value: str) -> None:
    found = clean(value)
    assert len(found) <= LONGEST
    assert found.isprintable()
    assert found.encode().decode() == found
    assert clean(found) == found


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([None, 200, 404])), max_size=30))
def test_however_requests_come_no_request_is_lost_and_labels_stay_bounded(seen: list[tuple[str, int | None]]) -> None:
    admission, total = Admission(("a",), limit=3), Tally()
    for model, status in seen:
        counting.add(admission.timeline(streamed(model, status=status)), total)
    requests = {labels[1]: n for (name, labels), n in total.counters.items() if name == catalog.REQUESTS and n}
    assert len(requests.keys() - {"other", "unknown"}) <= 3
    assert sum(n for (name, _), n in total.counters.items() if name == catalog.REQUESTS) == len(seen)
