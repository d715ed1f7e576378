"""Requests of the running parts, and the spans that they leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from service import tracing
from service.grpc import open_inference_pb2 as pb
from service.http.api import Api
from service.logs.request_log import RequestLog
from service.runtime import Runtime
from service.settings import LogSettings
from service.tracing.spans import SpanTracing
from tests.service.conftest import Hold, a_png, eventually, serving, some_settings
from tests.service.grpc.conftest import connected, infer_request

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
NEVER = ParentBased(TraceIdRatioBased(0))


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


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


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


def test_calls_over_grpc(tiny_root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        spans = traced(runtime)
        async with connected(runtime) as (client, _):
            await client.call("ModelInfer", infer_request(a_png(0), a_png(1)))
            (request,) = spans.named("inference.GRPCInferenceService/ModelInfer")
            assert request.kind is SpanKind.SERVER
            assert request.attributes == {
                "rpc.system.name": "grpc",
                "rpc.method": "inference.GRPCInferenceService/ModelInfer",
                "rpc.response.status_code": "OK",
                "resnet.images": 2,
                "resnet.model.name": "tiny",
                "resnet.model.version": "1",
            }
            assert sorted(s.name for s in spans.below(request)) == sorted(["decode", "queue", "infer"] * 2)
            unknown = pb.ModelMetadataRequest(name="nobody")
            assert (await client.refused("ModelMetadata", unknown))[0] is grpc.StatusCode.NOT_FOUND
            (refused,) = spans.named("inference.GRPCInferenceService/ModelMetadata")
            assert refused.status.status_code is StatusCode.UNSET
            assert refused.attributes is not None
            assert refused.attributes["rpc.response.status_code"] == "NOT_FOUND"
            await client.call("ServerReady", pb.ServerReadyRequest())
            assert not spans.named("inference.GRPCInferenceService/ServerReady")

    serving(some_settings(tiny_root), use)


def test_each_message_of_a_stream_has_the_streams_parent(tiny_root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        spans = traced(runtime)
        async with connected(runtime) as (client, _):
            stream = client.stream((("traceparent", SAMPLED),))
            for seed in (0, 1):
                await stream.write(infer_request(a_png(seed)))
                await stream.read()
            await stream.done_writing()
            await stream.read()
        found = spans.named("inference.GRPCInferenceService/ModelStreamInfer")
        assert [f"{span.parent.span_id:016x}" for span in found if span.parent] == [PARENT] * 2

    serving(some_settings(tiny_root), use)
