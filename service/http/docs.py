"""``/openapi.json`` and ``/docs``: the API's description, for programs and for people."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property

import orjson

from service.http.answers import Answer
from service.http.openapi import document
from service.http.operation import Operation
from service.http.routing import Call, Query, Route
from service.http.static import StaticFile
from service.runtime import Runtime


class _Docs:
    def __init__(self, runtime: Runtime, described: Sequence[Route]) -> None:
        self._described = described
        self._image_formats = runtime.settings.decode.image_formats
        self._page = StaticFile("docs.html")

    @cached_property
    def _file(self) -> StaticFile:
        return StaticFile("openapi.json", orjson.dumps(document(self._described, self._image_formats)))

    async def show(self, call: Call) -> Answer:
        call.query(Query)
        # Made when it is first asked for: that takes tens of milliseconds.
        return (await asyncio.to_thread(lambda: self._file)).answer(call)

    async def page(self, call: Call) -> Answer:
        call.query(Query)
        return self._page.answer(call)


def routes(runtime: Runtime, described: Sequence[Route]) -> list[Route]:
    """The routes of this module; ``described`` may still grow until the first request."""
    docs = _Docs(runtime, described)
    show = Operation(
        "This document",
        "service",
        "OpenAPI 3.1, for generators and tools.",
        query=Query,
        answers={200: {"application/json": {"type": "object", "required": ["openapi", "info", "paths"]}}, 304: {}},
        needs_models=False,
        access="open",
    )
    page = Operation(
        "The API as a page",
        "service",
        "This document for people; it loads nothing from elsewhere.",
        query=Query,
        answers={200: {"text/html": {"type": "string"}}, 304: {}},
        needs_models=False,
        access="open",
    )
    return [Route("GET", "/openapi.json", docs.show, show), Route("GET", "/docs", docs.page, page)]
