from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from service.config import ConfigError
from service.grpc.server import GrpcServer
from service.runtime import Runtime
from tests.service.conftest import Hold, a_png, eventually, serving, some_settings
from tests.service.grpc.conftest import connected, infer_request


def test_at_the_end_what_was_taken_is_answered(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(runtime: Runtime) -> None:
        hold = hold_model(runtime)
        async with connected(runtime) as (client, server):
            idle = client.stream()
            busy = client.stream()
            await busy.write(infer_request(a_png(0)))
            await hold.wait_entered()
            call = client.call("ModelInfer", infer_request(a_png(1)))
            await eventually(lambda: runtime.gate.images == 2, "the second request")
            stopping = asyncio.create_task(server.stop())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await idle.read()
            assert caught.value.code() is StatusCode.UNAVAILABLE
            assert (await client.refused("ServerLive", b""))[0] is StatusCode.UNAVAILABLE
            assert not stopping.done()
            hold.released.set()
            assert (await call).model_name == "tiny"
            assert (await busy.read()).infer_response.model_name == "tiny"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await busy.read()
            assert caught.value.code() is StatusCode.UNAVAILABLE
            await stopping

    serving(some_settings(tiny_root), use)


def test_workers_share_a_port_and_others_do_not(tiny_root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            settings = some_settings(tiny_root, grpc_port=other.getsockname()[1]).server
            with pytest.raises(ConfigError, match="another program may"):
                await GrpcServer(runtime).start(settings)
        first, second = GrpcServer(runtime), GrpcServer(runtime)
        assert await first.start(settings) == await second.start(settings) == settings.grpc_port
        await first.stop()
        await second.stop()

    serving(some_settings(tiny_root), use)
