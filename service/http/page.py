"""``/`` and ``/metrics``: the page for people, and what the service says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel

from service.errors import NotAcceptable
from service.http.accept import choose
from service.http.answers import Answer, json_answer
from service.http.operation import Operation
from service.http.routing import Call, Query, Route
from service.http.static import StaticFile
from service.metrics import CONTENT_TYPE, Metrics
from service.runtime import Runtime

JSON: Final = "application/json"
HTML: Final = "text/html"
_VARY: Final = (b"vary", b"accept")


class Index(BaseModel):
    """What is here."""

    service: str
    routes: list[str]


class _Page:
    def __init__(self, runtime: Runtime, paths: Sequence[str]) -> None:
        self._runtime = runtime
        self._paths = paths
        self._page = StaticFile("index.html")

    async def index(self, call: Call) -> Answer:
        """The page for browsers, which say that they like HTML best; the list of routes for all others."""
        if _likes_html(call.accept):
            return self._page.answer(call, _VARY)  # whatever is in the query: links get things appended
        call.query(Query)
        listed = json_answer({"service": "resnet-serving", "routes": self._paths})
        return Answer(listed.status, listed.body, (*listed.headers, _VARY))

    async def metrics(self, call: Call) -> Answer:
        del call  # Prometheus may be told to send parameters
        return await metrics_answer(self._runtime.metrics)


async def metrics_answer(metrics: Metrics) -> Answer:
    """All workers' metrics, for Prometheus."""
    text = await asyncio.to_thread(metrics.page)
    return Answer(200, text, ((b"content-type", CONTENT_TYPE.encode()),))


def routes(runtime: Runtime, others: Sequence[Route]) -> list[Route]:
    """The routes of this module; the index names ``others``, too."""
    paths = dict.fromkeys(route.path for route in others if route.operation.documented)
    metrics_here = runtime.settings.server.metrics_port is None  # else service/http/metrics_server.py has them
    page = _Page(runtime, ["/", *paths, *(["/metrics"] if metrics_here else []), "/livez", "/readyz"])
    index = Operation(
        "The page, or the routes there are",
        "service",
        "The page for people, where the Accept header likes HTML best; the routes as JSON for all others.",
        query=Query,
        answers={200: {JSON: Index, HTML: {"type": "string"}}, 304: {}},
        examples={"index": {"service": "resnet-serving", "routes": ["/", "/v1/classify", "/metrics"]}},
        needs_models=False,
        access="open",
    )
    metrics = Operation(
        "Prometheus metrics",
        "service",
        "Right across all workers, whichever of them answers. With `RESNET_METRICS_PORT` they are there instead.",
        answers={200: {"text/plain": {"type": "string"}}},
        needs_models=False,
        access="open",
    )
    found = [Route("GET", "/", page.index, index)]
    if metrics_here:
        found.append(Route("GET", "/metrics", page.metrics, metrics))
    return found


def _likes_html(accept: str | None) -> bool:
    try:
        return choose(accept, (JSON, HTML)) == HTML
    except NotAcceptable:
        return False  # JSON does no harm to one who takes neither
