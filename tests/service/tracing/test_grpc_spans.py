"""Calls over gRPC, and the spans that they leave."""

from __future__ import annotations

from pathlib import Path

import grpc
from opentelemetry.trace import SpanKind, StatusCode

from service.grpc import open_inference_pb2 as pb
from service.runtime import Runtime
from tests.service.conftest import a_png, serving, some_settings
from tests.service.grpc.conftest import connected, infer_request

from .conftest import PARENT, SAMPLED, traced


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
