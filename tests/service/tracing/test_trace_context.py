"""A client's trace goes on (W3C Trace Context), and a broken one does no harm."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from service.runtime import Runtime
from tests.service.conftest import a_png

from .conftest import PARENT, SAMPLED, TRACE, Spans, identity, serve


def test_the_clients_trace_goes_on(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime, spans: Spans) -> None:
        headers = {"traceparent": SAMPLED, "tracestate": "vendor=x"}
        response = await client.post("/v1/classify", content=a_png(), headers=headers)
        (request,) = spans.named("POST /v1/classify")
        assert request.parent is not None
        assert request.parent.is_remote
        assert f"{request.parent.span_id:016x}" == PARENT
        assert request.context is not None
        assert f"{request.context.trace_id:032x}" == TRACE
        assert dict(request.context.trace_state) == {"vendor": "x"}
        assert response.headers["traceresponse"] == f"00-{TRACE}-{identity(request):016x}-01"
        await client.post("/v1/classify", content=a_png(), headers={"traceparent": SAMPLED[:-1] + "0"})
        assert len(spans.named("POST /v1/classify")) == 1  # its sender does not record it, so neither do we

    serve(tiny_root, use)


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "nonsense")],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"ff-{TRACE}-{PARENT}-01")],
        [("traceparent", f"{SAMPLED}-more")],
        [("traceparent", SAMPLED), ("traceparent", SAMPLED)],
        [("tracestate", "vendor=x")],
    ],
)
def test_a_broken_parent_is_ignored(tiny_root: Path, headers: list[tuple[str, str]]) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime, spans: Spans) -> None:
        response = await client.post("/v1/classify", content=a_png(), headers=headers)
        assert response.status_code == 200
        (request,) = spans.named("POST /v1/classify")
        assert request.parent is None
        assert request.context is not None
        assert f"{request.context.trace_id:032x}" != TRACE

    serve(tiny_root, use)


def test_a_broken_state_alone_is_dropped(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime, spans: Spans) -> None:
        await client.post("/v1/classify", content=a_png(), headers={"traceparent": SAMPLED, "tracestate": "?" * 999})
        (request,) = spans.named("POST /v1/classify")
        assert request.parent is not None
        assert not request.parent.trace_state

    serve(tiny_root, use)
