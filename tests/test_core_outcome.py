"""Every status and every set of finish reasons decides one outcome."""

import pytest

from exporter.core.outcome import Ending, ErrorType, Outcome, of_finish_reasons, of_status


@pytest.mark.parametrize("status", [100, 101, 200, 201, 204, 206, 301, 304, 399])
def test_a_status_without_an_error_leaves_it_to_the_body(status: int) -> None:
    assert of_status(status) is None


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        (400, (Outcome.INVALID, ErrorType.UPSTREAM_4XX)),
        (404, (Outcome.INVALID, ErrorType.UPSTREAM_4XX)),
        (408, (Outcome.TIMED_OUT, ErrorType.UPSTREAM_4XX)),
        (422, (Outcome.INVALID, ErrorType.UPSTREAM_4XX)),
        (429, (Outcome.REJECTED, ErrorType.UPSTREAM_4XX)),
        (499, (Outcome.INVALID, ErrorType.UPSTREAM_4XX)),
        (500, (Outcome.FAILED, ErrorType.UPSTREAM_5XX)),
        (502, (Outcome.FAILED, ErrorType.UPSTREAM_5XX)),
        (503, (Outcome.REJECTED, ErrorType.UPSTREAM_5XX)),
        (504, (Outcome.TIMED_OUT, ErrorType.UPSTREAM_5XX)),
        (599, (Outcome.FAILED, ErrorType.UPSTREAM_5XX)),
    ],
)
def test_an_error_status_decides(status: int, ending: Ending) -> None:
    assert of_status(status) == ending


@pytest.mark.parametrize(
    ("reasons", "ending"),
    [
        ((), (Outcome.FAILED, ErrorType.PROTOCOL)),
        (("stop",), (Outcome.COMPLETED, ErrorType.NONE)),
        (("tool_calls",), (Outcome.COMPLETED, ErrorType.NONE)),
        (("content_filter",), (Outcome.COMPLETED, ErrorType.NONE)),
        (("a word of next year's",), (Outcome.COMPLETED, ErrorType.NONE)),
        (("length",), (Outcome.LENGTH, ErrorType.NONE)),
        (("stop", "length"), (Outcome.LENGTH, ErrorType.NONE)),
        (("abort",), (Outcome.FAILED, ErrorType.ENGINE_ERROR)),
        (("error",), (Outcome.FAILED, ErrorType.ENGINE_ERROR)),
        (("length", "abort"), (Outcome.FAILED, ErrorType.ENGINE_ERROR)),
    ],
)
def test_finish_reasons_decide(reasons: tuple[str, ...], ending: Ending) -> None:
    assert of_finish_reasons(reasons) == ending
