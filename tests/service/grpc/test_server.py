from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from service.config import ConfigError
from service.grpc import open_inference_pb2 as pb
from service.grpc.server import GrpcServer
from service.runtime import Runtime
from tests.service.conftest import Hold, a_png, eventually, serving, some_settings
from tests.service.grpc.conftest import Client, connected, infer_request

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a client begins: RFC 9113, 3.4, and settings that are none."""


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


def test_connections_are_bounded_in_number_and_idleness(tiny_root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        async with connected(runtime) as (client, server):
            assert (await client.call("ServerLive", pb.ServerLiveRequest())).live
            others = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(4)]
            told = await asyncio.gather(*(asyncio.to_thread(heard, other) for other in others))
            assert sorted(map(bool, told)) == [False, False, True, True], "three are taken, and the client's is one"
            assert (await client.call("ServerLive", pb.ServerLiveRequest())).live

    serving(some_settings(tiny_root, max_connections=3, keep_alive_s=2), use)


def heard(connection: socket.socket) -> bytes:
    """What one that only begins is told until it is closed."""
    said = b""
    with connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(HTTP2)
        while data := connection.recv(4096):
            said += data
    return said


def test_a_request_without_a_name_does_not_end_it(tiny_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """``grpc.aio``'s server ends where a path is no UTF-8: another takes its place, and what it had is answered."""

    async def use(runtime: Runtime) -> None:
        async with connected(runtime) as (client, server):
            port = server.port
            stream = client.stream()
            await stream.write(infer_request(a_png()))
            assert not (await stream.read()).error_message
            for _ in range(3):
                ended = server.restarts
                await asyncio.to_thread(send_raw, port, nameless())
                await eventually(lambda ended=ended: server.restarts > ended, "another server")
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    assert (await Client(channel).call("ServerLive", pb.ServerLiveRequest())).live
            await stream.write(infer_request(a_png()))
            assert not (await stream.read()).error_message
            stream.cancel()

    serving(some_settings(tiny_root), use)
    assert "started anew" in caplog.text


def nameless() -> bytes:
    """A call whose ``:path`` is no UTF-8, as HTTP/2 (RFC 9113, RFC 7541)."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    sent = {":method": b"POST", ":scheme": b"http", ":path": b"/x/\xff", ":authority": b"x", "te": b"trailers"}
    sent["content-type"] = b"application/grpc"
    headers = b"".join(b"\0%c%s%c%s" % (len(name), name.encode(), len(value), value) for name, value in sent.items())
    return HTTP2 + frame(1, 5, 1, headers)


def send_raw(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        connection.recv(4096)
