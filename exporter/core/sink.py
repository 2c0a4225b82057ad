"""What a source of requests hands its findings to."""

from typing import Protocol

from exporter.core.timeline import Timeline


class Sink(Protocol):
    """Takes ended requests. It must not raise: a sink's own failure is a counter, not somebody's outage."""

    def record(self, timeline: Timeline) -> None:
        """Take one ended request."""
