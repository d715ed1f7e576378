"""Requests of the running parts, and the spans that they leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from service import tracing
from service.logs.request_log import RequestLog
from service.runtime import Runtime
from service.settings import LogSettings
from tests.service.conftest import Hold, a_png, eventually

from .conftest import SAMPLED, TRACE, Spans, identity, serve

NEVER = ParentBased(TraceIdRatioBased(0))


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


def two_files(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{i}.png", content, "image/png")) for i, content in enumerate(contents)]


def test_two_images_in_a_batch_with_another_request(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime, spans: Spans) -> None:
        hold = hold_model(runtime)
        first = asyncio.create_task(client.post("/v1/classify", content=a_png(0)))
        await hold.wait_entered()
        two = asyncio.create_task(client.post("/v1/classify", files=two_files(a_png(1), a_png(2))))
        await eventually(lambda: queued(runtime, 2), "two in the queue")
        one = asyncio.create_task(client.post("/v1/classify", content=a_png(3), headers={"x-request-id": "one"}))
        await eventually(lambda: queued(runtime, 3), "three in the queue")
        rest = asyncio.create_task(client.post("/v2/models/tiny/infer", json=an_inference(images=2)))
        await eventually(lambda: queued(runtime, 5), "five in the queue, of which the next batch takes three")
        hold.released.set()
        assert [(await request).status_code for request in (first, two, one, rest)] == [200] * 4
        requests = {span.attributes["resnet.request_id"]: span for span in spans.named("POST /v1/classify")}  # type: ignore[index]
        small = requests.pop("one")
        (large,) = (span for span in requests.values() if span.attributes["resnet.images"] == 2)  # type: ignore[index]
        assert large.kind is SpanKind.SERVER
        assert large.parent is None
        assert large.status.status_code is StatusCode.UNSET
        attributes = dict(large.attributes or {})
        assert attributes.pop("resnet.request_id")
        assert attributes.pop("user_agent.original")
        assert attributes == {
            "http.request.method": "POST",
            "http.route": "/v1/classify",
            "http.response.status_code": 200,
            "network.protocol.version": "1.1",
            "resnet.images": 2,
            "resnet.model.name": "tiny",
            "resnet.model.version": "1",
            "url.path": "/v1/classify",
            "url.scheme": "http",
        }
        below = spans.below(large)
        assert sorted((s.name, s.attributes["resnet.image"]) for s in below) == [  # type: ignore[index]
            (name, number) for name in ("decode", "infer", "queue") for number in (0, 1)
        ]
        for span in below:
            assert span.context is not None
            assert large.context is not None
            assert span.context.trace_id == large.context.trace_id
            assert large.start_time <= span.start_time <= span.end_time <= large.end_time  # type: ignore[operator]
        _, batch, _ = spans.named("batch")
        assert batch.parent is None
        assert batch.attributes == {
            "resnet.batch.size": 3,
            "resnet.model.name": "tiny",
            "resnet.model.version": "1",
        }
        assert linked(batch) == {identity(large), identity(small)}
        (inferred,) = spans.below(batch)
        assert inferred.name == "infer"
        for span in below + spans.below(small):
            if span.name == "infer":
                assert linked(span) == {identity(batch)}
                assert (span.start_time, span.end_time) == pytest.approx((inferred.start_time, inferred.end_time))

    serve(tiny_root, use)


def queued(runtime: Runtime, images: int) -> bool:
    """Whether ``images`` wait, as the metrics say."""
    lines = runtime.metrics.page().decode().splitlines()
    return any(line.startswith("resnet_queue_images{") and line.endswith(f" {images}.0") for line in lines)


@pytest.mark.parametrize("threads", [0, 1], ids=["in the slot", "ahead"])
def test_a_bad_image_is_an_error_of_its_decoding(tiny_root: Path, threads: int) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime, spans: Spans) -> None:
        response = await client.post("/v1/classify", content=b"no image")
        assert response.status_code == 415
        (request,) = spans.named("POST /v1/classify")
        assert request.status.status_code is StatusCode.UNSET  # the client's fault
        assert request.attributes is not None
        assert request.attributes["http.response.status_code"] == 415
        (decoded,) = spans.named("decode")
        assert decoded.status.status_code is StatusCode.ERROR
        assert decoded.attributes is not None
        assert decoded.attributes["error.type"] == "not_an_image"
        assert not spans.named("infer")

    serve(tiny_root, use, decode_threads=threads)


def test_images_decoded_ahead_wait_behind_their_decoding(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime, spans: Spans) -> None:
        await client.post("/v1/classify", files=two_files(a_png(0), a_png(1)))
        for number in (0, 1):
            of_all = spans.named("decode", "queue", "infer")
            mine = [span for span in of_all if (span.attributes or {}).get("resnet.image") == number]
            assert [span.name for span in mine] == ["decode", "queue", "infer"]
            assert all(after.start_time >= span.end_time for span, after in pairwise(mine))  # type: ignore[operator]

    serve(tiny_root, use, decode_threads=1)


def test_a_failing_model_is_the_servers_error(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime, spans: Spans) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("no memory")

        monkeypatch.setattr(runtime.models[0].session, "run", fail)
        assert (await client.post("/v1/classify", content=a_png())).status_code == 500
        (request,), (batch,) = spans.named("POST /v1/classify"), spans.named("batch")
        assert request.status.status_code is batch.status.status_code is StatusCode.ERROR
        assert request.attributes is not None
        assert request.attributes["error.type"] == "500"

    serve(tiny_root, use)


def test_a_request_that_ends_first_has_waited(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime, spans: Spans) -> None:
        hold = hold_model(runtime)
        first = asyncio.create_task(client.post("/v1/classify", content=a_png(0)))
        await hold.wait_entered()
        late = await client.post("/v2/models/tiny/infer", json=an_inference(timeout=1))
        assert late.status_code == 504
        (request,) = spans.named("POST /v2/models/{name}/infer")
        assert request.status.status_code is StatusCode.ERROR
        assert [span.name for span in spans.below(request)] == ["queue"]
        hold.released.set()
        assert (await first).status_code == 200

    serve(tiny_root, use)


def an_inference(images: int = 1, **parameters: object) -> dict[str, Any]:
    pixels = {"name": "image", "shape": [images, 4, 4, 3], "datatype": "UINT8", "data": [0] * 48 * images}
    return {"inputs": [pixels], "parameters": parameters}


def test_nothing_is_recorded_at_a_rate_of_zero(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime, spans: Spans) -> None:
        response = await client.post("/v1/classify", content=a_png())
        assert response.status_code == 200
        assert "traceresponse" not in response.headers
        assert spans.count == 0

    serve(tiny_root, use, NEVER)


def test_a_batch_is_recorded_with_the_one_request_that_is(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime, spans: Spans) -> None:
        await client.post("/v1/classify", content=a_png(), headers={"traceparent": SAMPLED})
        assert len(spans.named("batch")) == 1

    serve(tiny_root, use, NEVER)


def test_names_are_bounded_and_probes_leave_no_trace(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime, spans: Spans) -> None:
        await client.get("/metrics")
        await client.get("/v2/health/ready")
        assert spans.count == 0
        await client.request("BREW", "/" + "x" * 999, headers={"user-agent": "y" * 999})
        (request,) = spans.named("HTTP")
        assert request.attributes is not None
        assert request.attributes["http.request.method"] == "_OTHER"
        assert not {"http.route", "url.path"} & set(request.attributes)
        assert len(str(request.attributes["user_agent.original"])) == 256

    serve(tiny_root, use)


def test_a_trace_that_fails_fails_no_request(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime, spans: Spans) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("a full disk, say")

        with caplog.at_level(logging.CRITICAL):
            monkeypatch.setattr(runtime.tracing, "_inner", type("Broken", (), {"start_span": fail})())
            assert (await client.post("/v1/classify", content=a_png())).status_code == 200
            monkeypatch.setattr(runtime.tracing, "_requests", type("Broken", (), {"start_span": fail})())
            assert (await client.post("/v1/classify", content=a_png())).status_code == 200
        assert spans.count == 0

    serve(tiny_root, use)


def test_the_log_names_the_trace(tiny_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime, spans: Spans) -> None:
        runtime.requests = RequestLog(LogSettings(log_requests="all"))
        with caplog.at_level(logging.INFO, "service.request"):
            await client.post("/v1/classify", content=a_png(), headers={"traceparent": SAMPLED})
            await client.get("/metrics")  # which is not traced
        found = [record.fields for record in caplog.records if record.name == "service.request"]  # type: ignore[attr-defined]
        assert [(line["route"], line.get("trace_id")) for line in found] == [
            ("/v1/classify", TRACE),
            ("/metrics", None),
        ]
        assert [request.trace_id for request in runtime.requests.slow.slowest() if request.route != "/metrics"] == [
            TRACE
        ]
        assert tracing.ids() is None

    serve(tiny_root, use)
