"""Log lines: one logfmt line per event, whatever is in the values."""

import logging
import re

import pytest

from exporter import log


@pytest.fixture(autouse=True)
def restored() -> object:
    root, own = logging.getLogger(), logging.getLogger("exporter")
    kept = (root.handlers[:], root.level, own.level)
    yield
    root.handlers[:], root.level, own.level = kept


def test_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("relay 0")
    log.warning("gone away", pid=3, after=0.25, ready=True, why=None)
    line = capsys.readouterr().err
    assert re.fullmatch(
        r'ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=warning process="relay 0" msg="gone away" '
        r"pid=3 after=0.25 ready=true\n",
        line,
    )


def test_no_value_can_make_a_second_line_or_another_key(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("relay")
    log.info("x", model='a\nlevel=error b="c"\x1b[31m\u2028', empty="")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.endswith(r'model="a\nlevel=error b=\"c\"\u001b[31m\u2028" empty=""' + "\n")


def test_libraries_speak_in_the_same_form_and_only_when_it_matters(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("observer")
    logging.getLogger("somebody").info("chatter")
    try:
        int("broken")
    except ValueError:
        logging.getLogger("somebody").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "msg=failed" in line
    assert "ValueError: invalid literal" in line
