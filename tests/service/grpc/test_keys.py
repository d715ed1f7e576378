"""API keys over gRPC, as metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from service.access.keys import line_of
from service.grpc import open_inference_pb2 as pb
from service.runtime import Runtime
from tests.service.conftest import a_png
from tests.service.grpc.conftest import Client, infer_request, serve

KEY = "a-key-of-somebody"
KEYS = line_of("somebody", KEY)
METADATA = [(("authorization", f"Bearer {KEY}"),), (("x-api-key", KEY),)]
WRONG = [(), (("authorization", "Bearer wrong"),), (("x-api-key", "wrong"),), (("x-api-key-bin", KEY.encode()),)]


class Keyed(Client):
    """Sends ``metadata`` with each call."""

    def __init__(self, client: Client, metadata: Any) -> None:
        super().__init__(client._channel)
        self._metadata = metadata

    def call(self, method: str, request: Any, timeout: float | None = 30) -> Any:
        answer = getattr(pb, f"{method}Response")
        made = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}", response_deserializer=answer.FromString
        )
        return made(request.SerializeToString(), timeout=timeout, metadata=self._metadata)


@pytest.mark.parametrize("metadata", METADATA)
def test_a_key_lets_in(tiny_root: Path, metadata: Any) -> None:
    async def use(client: Client, _: Runtime) -> None:
        answer = await Keyed(client, metadata).call("ModelInfer", infer_request(a_png()))
        assert answer.model_name == "tiny"
        stream = client.stream(metadata)
        await stream.write(infer_request(a_png()))
        assert not (await stream.read()).error_message
        stream.cancel()

    serve(tiny_root, use, api_keys=KEYS)


@pytest.mark.parametrize("metadata", WRONG)
def test_without_one_only_health_is_told(tiny_root: Path, metadata: Any) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        keyless = Keyed(client, metadata)
        assert (await keyless.call("ServerLive", pb.ServerLiveRequest())).live
        assert (await keyless.call("ServerReady", pb.ServerReadyRequest())).ready
        asked = {
            "ModelInfer": infer_request(a_png()),
            "ModelReady": pb.ModelReadyRequest(name="tiny"),
            "ModelMetadata": pb.ModelMetadataRequest(name="tiny"),
            "ServerMetadata": pb.ServerMetadataRequest(),
        }
        for method, request in asked.items():
            code, said = await keyless.refused(method, request)
            assert code == grpc.StatusCode.UNAUTHENTICATED, method
            assert KEY not in said
        stream = client.stream(metadata)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.read()
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
        page = runtime.metrics.page().decode()
        assert f'reason="unauthorized"}} {float(len(asked) + 1)}' in page
        assert 'route="grpc/ModelStreamInfer"' in page

    serve(tiny_root, use, api_keys=KEYS)


@pytest.mark.parametrize("method", ["ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"])
def test_without_one_no_request_is_waited_for(tiny_root: Path, method: str) -> None:
    async def use(client: Client, _: Runtime) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.unfinished(method)
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED

    serve(tiny_root, use, api_keys=KEYS)


def test_who_sends_too_much_waits(tiny_root: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        keyed = Keyed(client, METADATA[0])
        await keyed.call("ModelInfer", infer_request(a_png()))
        code, said = await keyed.refused("ModelInfer", infer_request(a_png()))
        assert (code, "0.001 images a second" in said) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)

    serve(tiny_root, use, api_keys=KEYS, key_images_per_s=0.001)
