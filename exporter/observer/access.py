"""The access log: one line for each request that went badly or slowly, with its phases; never a prompt or an answer."""

from exporter import log
from exporter.config import Config
from exporter.core.outcome import Outcome
from exporter.core.timeline import Timeline
from exporter.observer.admission import clean

_GOOD = (Outcome.COMPLETED, Outcome.LENGTH, Outcome.CANCELLED)


class AccessLog:
    """Writes the requests that the configuration asks for."""

    def __init__(self, config: Config) -> None:
        """``access_log`` and ``slow_threshold`` decide."""
        self._mode = config.access_log
        self._slow = config.slow_threshold

    def record(self, timeline: Timeline) -> None:
        """Take one ended request, its model as the client wrote it."""
        good, slow = timeline.outcome in _GOOD, self.slow(timeline)
        if self._mode == "off" or (self._mode == "bad" and good and not slow):
            return
        write = log.info if good and not slow else log.warning
        write("request", **fields(timeline), slow=slow or None)

    def slow(self, timeline: Timeline) -> bool:
        """Whether the wait for the first token, or for an answer that is not streamed, reached the threshold."""
        waited = timeline.ttft if timeline.ttft is not None else timeline.latency
        return 0 < self._slow <= waited


def fields(timeline: Timeline) -> dict[str, log.Field]:
    """What a line says of a request; durations in seconds, what is not known left out."""
    identity, usage = timeline.identity, timeline.usage
    return {
        "trace_id": identity.trace_id,
        "operation": identity.operation,
        "model": clean(identity.model) if identity.model else None,
        "outcome": timeline.outcome.value,
        "error_type": timeline.error_type.value or None,
        "status": timeline.status,
        "stream": identity.stream,
        "latency": timeline.latency,
        "ttft": timeline.ttft,
        "queueing": timeline.queueing.seconds if timeline.queueing else None,
        "queueing_source": timeline.queueing.source.value if timeline.queueing else None,
        "prefill": timeline.prefill.seconds if timeline.prefill else None,
        "prefill_source": timeline.prefill.source.value if timeline.prefill else None,
        "decode": timeline.decode,
        "tpot": timeline.tpot,
        "stalled": timeline.stalled or None,
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "estimated": timeline.estimated or None,
    }
