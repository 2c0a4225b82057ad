"""The web port: metrics, health as the supervisor tells it, the status page and its JSON."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp

from exporter.control import Facts
from exporter.observer.auth import BasicAuth
from exporter.observer.page import page
from exporter.observer.status import Status

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
_SMALL = 1024  # bytes that are not worth compressing
_RENDERS = 2
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Scrapes:
    """Renders metrics, at most two at a time: a burst of scrapes must not keep the observer from folding."""

    def __init__(self, settled: Callable[[], Awaitable[bool]], render: Callable[[bool], bytes]) -> None:
        """``settled`` says whether totals are complete, ``render`` gives them, as OpenMetrics when told so."""
        self._settled = settled
        self._render = render
        self._turns = asyncio.Semaphore(_RENDERS)

    async def answer(self, accept: str, accept_encoding: str) -> Response:
        """Metrics as the scraper wants them; 503 while a restarted observer does not have them all again."""
        if not await self._settled():
            text = "the observer was restarted and waits for the relays\n"
            return PlainTextResponse(text, 503, {"Retry-After": "1"})
        openmetrics = wants_openmetrics(accept)
        headers = {"Content-Type": OPENMETRICS if openmetrics else TEXT, "Vary": "Accept, Accept-Encoding"}
        async with self._turns:
            body = self._render(openmetrics)
            if len(body) > _SMALL and _qualities(accept_encoding).get("gzip", 0.0) > 0:
                body = await asyncio.to_thread(gzip.compress, body, 1)
                headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers)


def application(
    scrapes: Scrapes, facts: Callable[[], Facts | None], status: Callable[[], Status], users: Mapping[str, bytes]
) -> ASGIApp:
    """The web port's application, every path of it behind basic auth where there are ``users``."""
    app = FastAPI(title="inference-exporter", docs_url=None, redoc_url=None, openapi_url=None)

    async def metrics(request: Request) -> Response:
        return await scrapes.answer(request.headers.get("accept", ""), request.headers.get("accept-encoding", ""))

    async def index() -> Response:
        return HTMLResponse(page(status()), headers=_SAFE)

    async def api_status() -> Response:
        return Response(msgspec.json.encode(status()), media_type="application/json", headers=_SAFE)

    routes: dict[str, Callable[..., Awaitable[Response]]] = {
        "/": index,
        "/metrics": metrics,
        "/api/status": api_status,
        "/-/healthy": _probe(facts, "healthy"),
        "/-/ready": _probe(facts, "ready"),
        "/-/drained": _probe(facts, "drained"),
    }
    for path, endpoint in routes.items():
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], response_model=None)
    return BasicAuth(app, users)


def wants_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics is asked for, and no less than plain text."""
    given = _qualities(accept)
    quality = given.get("application/openmetrics-text", 0.0)
    return quality > 0 and quality >= given.get("text/plain", 0.0)


def _probe(facts: Callable[[], Facts | None], name: str) -> Callable[[], Awaitable[Response]]:
    async def probe() -> Response:
        known = facts()
        good = known is not None and bool(getattr(known, name))
        return PlainTextResponse(f"{name}\n" if good else f"not {name}\n", 200 if good else 503)

    return probe


def _qualities(header: str) -> dict[str, float]:
    """The highest quality given to each name in an Accept-like header."""
    found: dict[str, float] = {}
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                quality = _number(parameter[2:])
        found[name] = max(found.get(name, 0.0), quality)
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
