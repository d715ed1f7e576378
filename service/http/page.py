"""``/`` and ``/metrics``: what the service says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic import BaseModel

from service.http.answers import Answer, json_answer
from service.http.operation import Operation
from service.http.routing import Call, Query, Route
from service.metrics import CONTENT_TYPE
from service.runtime import Runtime


class Index(BaseModel):
    """What is here."""

    service: str
    routes: list[str]


class _Page:
    def __init__(self, runtime: Runtime, paths: Sequence[str]) -> None:
        self._runtime = runtime
        self._paths = paths

    async def index(self, call: Call) -> Answer:
        call.query(Query)
        return json_answer({"service": "resnet-serving", "routes": self._paths})

    async def metrics(self, call: Call) -> Answer:
        del call  # Prometheus may be told to send parameters
        text = await asyncio.to_thread(self._runtime.metrics.page)
        return Answer(200, text, ((b"content-type", CONTENT_TYPE.encode()),))


def routes(runtime: Runtime, others: Sequence[Route]) -> list[Route]:
    """The routes of this module; the index names ``others``, too."""
    paths = dict.fromkeys(route.path for route in others if route.operation.documented)
    page = _Page(runtime, ["/", *paths, "/metrics", "/livez", "/readyz"])
    index = Operation(
        "The routes there are",
        "service",
        query=Query,
        answers={200: {"application/json": Index}},
        examples={"index": {"service": "resnet-serving", "routes": ["/", "/v1/classify", "/metrics"]}},
        needs_models=False,
    )
    metrics = Operation(
        "Prometheus metrics",
        "service",
        "Right across all workers, whichever of them answers.",
        answers={200: {"text/plain": {"type": "string"}}},
        needs_models=False,
    )
    return [Route("GET", "/", page.index, index), Route("GET", "/metrics", page.metrics, metrics)]
