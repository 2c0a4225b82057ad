"""Waiting on a condition with a bounded deadline, never on luck."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 30.0
"""Seconds a test waits for something that should take far less."""


class DeadlineError(AssertionError):
    """What was waited for did not happen in time."""


def until(condition: Callable[[], T | None], what: str, within: float = DEADLINE, every: float = 0.01) -> T:
    """The first value of `condition` that is neither None nor False, asked every `every` seconds."""
    end = time.monotonic() + within
    pause = threading.Event()
    while True:
        value = condition()
        if value is not None and value is not False:
            return value
        if time.monotonic() > end:
            raise DeadlineError(f"not within {within:g} s: {what}")
        pause.wait(every)
