"""Keeps OpenTelemetry's own log lines to one a minute: a collector that is away is one fact, not a stream of them."""

import logging
from collections.abc import Callable

_EVERY = 60.0  # seconds
_TALKATIVE = ("opentelemetry", "exporter.sinks.otel", "urllib3", "grpc")


class OncePerMinute(logging.Filter):
    """Lets one record of the span exporters through, then none for a minute; everything else passes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds."""
        super().__init__()
        self._clock = clock
        self._next = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; a traceback is left out, the message says what failed."""
        if not record.name.startswith(_TALKATIVE):
            return True
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + _EVERY
        record.exc_info = None
        record.exc_text = None
        return True
