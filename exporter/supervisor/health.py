"""The answers of the health port; never authenticated, and answered whatever the other processes do."""

from collections.abc import Callable
from http import HTTPStatus

from exporter.supervisor.changes import Changes
from exporter.supervisor.http import Answer, Request
from exporter.supervisor.rhythm import Rhythm
from exporter.supervisor.state import State

_ROUTES = {"/-/healthy": "GET", "/-/ready": "GET", "/-/drained": "GET", "/-/drain": "POST"}


class Health:
    """``drain`` begins a drain; ``clock`` gives monotonic seconds."""

    def __init__(
        self, state: State, changes: Changes, rhythm: Rhythm, drain: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        """Answers from ``state`` as it is when asked."""
        self._state = state
        self._changes = changes
        self._rhythm = rhythm
        self._drain = drain
        self._clock = clock

    async def answer(self, request: Request) -> Answer:
        """The answer, which only /-/drained takes its time for."""
        allowed = _ROUTES.get(request.path)
        if allowed is None:
            return Answer(HTTPStatus.NOT_FOUND, f"known are {', '.join(_ROUTES)}")
        if request.method != allowed and not (request.method == "HEAD" and allowed == "GET"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, f"{allowed} only", allow=allowed)
        if request.path == "/-/drain":
            return self._begin(request)
        if request.path == "/-/drained":
            return await self._drained()
        if request.path == "/-/ready":
            return _verdict(self._state.unready(self._clock()), "ready")
        return _verdict(self._state.unhealthy(), "healthy")

    def _begin(self, request: Request) -> Answer:
        if not request.local or request.from_page:
            return Answer(HTTPStatus.FORBIDDEN, "only from the machine or pod itself, and from no web page")
        self._drain()
        return Answer(HTTPStatus.ACCEPTED, "draining")

    async def _drained(self) -> Answer:
        if not await self._changes.until(lambda: self._state.draining, self._rhythm.drain_begins_within):
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "not draining")
        await self._changes.until(lambda: self._state.drained)
        return Answer(HTTPStatus.OK, "drained")


def _verdict(reason: str | None, good: str) -> Answer:
    return Answer(HTTPStatus.OK, good) if reason is None else Answer(HTTPStatus.SERVICE_UNAVAILABLE, reason)
