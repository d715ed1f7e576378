"""A gRPC server over a runtime, and calls of it as any client makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from service.grpc import open_inference_pb2 as pb
from service.grpc.methods import SERVICE
from service.grpc.server import GrpcServer
from service.inference_protocol.tensors import join_strings
from service.runtime import Runtime
from tests.service.conftest import eventually, serving, some_settings


class Client:
    """Calls methods; what is no message is sent as it is."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def call(self, method: str, request: Message | bytes, timeout: float | None = 30) -> Any:
        """A call under way, to be awaited or cancelled."""
        answer = getattr(pb, f"{method}Response", pb.ServerLiveResponse)
        made = self._channel.unary_unary(f"/{SERVICE}/{method}", response_deserializer=answer.FromString)
        return made(request if isinstance(request, bytes) else request.SerializeToString(), timeout=timeout)

    async def refused(self, method: str, request: Message | bytes, **options: Any) -> tuple[grpc.StatusCode, str]:
        """The status and message that the call fails with."""
        try:
            await self.call(method, request, **options)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        raise AssertionError("the call was answered")

    async def unfinished(self, method: str) -> bytes:
        """The answer to a call whose request has not come."""
        async with asyncio.timeout(30):
            answer: bytes = await self._channel.stream_unary(f"/{SERVICE}/{method}")()
        return answer

    def stream(self, metadata: Sequence[tuple[str, str]] = (), timeout: float | None = 30) -> Any:
        made = self._channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        return made(timeout=timeout, metadata=metadata)


def infer_request(*images: bytes, **fields: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(images)])
    return pb.ModelInferRequest(model_name="tiny", inputs=[tensor], raw_input_contents=[join_strings(images)], **fields)


@asynccontextmanager
async def connected(runtime: Runtime) -> AsyncIterator[tuple[Client, GrpcServer]]:
    server = GrpcServer(runtime)
    port = await server.start(runtime.settings.server)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Client(channel), server
    finally:
        await server.stop()


def serve(root: Path, use: Callable[[Client, Runtime], Awaitable[None]], **environ: object) -> None:
    """Run ``use`` with a client of a service over ``root``."""

    async def with_client(runtime: Runtime) -> None:
        async with connected(runtime) as (client, _):
            await use(client, runtime)
            await eventually(lambda: runtime.gate.images == 0, "an empty gate")

    serving(some_settings(root, **environ), with_client)
