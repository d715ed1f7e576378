"""A service that keeps its spans, and a client's trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from service.http.api import Api
from service.runtime import Runtime
from service.tracing.spans import SpanTracing
from tests.service.conftest import serving, some_settings

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


class Spans:
    """What was exported so far."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def named(self, *names: str) -> list[ReadableSpan]:
        """Those with these names, in the order of their beginning."""
        found = [span for span in self._exporter.get_finished_spans() if span.name in names]
        return sorted(found, key=lambda span: span.start_time or 0)

    def below(self, parent: ReadableSpan) -> list[ReadableSpan]:
        spans = self._exporter.get_finished_spans()
        return [span for span in spans if span.parent and parent.context and span.parent == parent.context]

    @property
    def count(self) -> int:
        return len(self._exporter.get_finished_spans())


def identity(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def traced(runtime: Runtime, sampler: Sampler | None = None) -> Spans:
    exporter = InMemorySpanExporter()
    runtime.tracing = SpanTracing(SimpleSpanProcessor(exporter), Resource.get_empty(), sampler)
    return Spans(exporter)


Use = Callable[[httpx.AsyncClient, Runtime, Spans], Awaitable[None]]


def serve(root: Path, use: Use, sampler: Sampler | None = None, **environ: object) -> None:
    async def with_client(runtime: Runtime) -> None:
        spans = traced(runtime, sampler)
        transport = httpx.ASGITransport(Api(runtime), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await use(client, runtime, spans)

    serving(some_settings(root, **environ), with_client)
