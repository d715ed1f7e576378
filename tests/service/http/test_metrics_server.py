from __future__ import annotations

import asyncio
import signal
import socket

import httpx
import pytest

from service.config import ConfigError
from service.http.metrics_server import MetricsServer
from service.metrics import Metrics
from service.settings import AccessSettings, ServerSettings


def test_metrics_and_nothing_else() -> None:
    async def use() -> None:
        before = signal.getsignal(signal.SIGTERM)
        server = MetricsServer(Metrics(None), AccessSettings())
        port = await server.start(ServerSettings())
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            page = await client.get("/metrics")
            assert page.status_code == 200
            assert "resnet_workers_ready" in page.text
            assert (await client.head("/metrics")).status_code == 200
            posted = await client.post("/metrics")
            assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")
            assert (await client.get("/v1/models")).json()["error"]["code"] == "not_found"
        assert signal.getsignal(signal.SIGTERM) is before
        await server.stop()
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{port}/metrics")

    asyncio.run(use())


@pytest.mark.parametrize("silent", [62, 63, 64, 70])
def test_who_only_connects_keeps_prometheus_not_out(silent: int) -> None:
    async def use() -> None:
        server = MetricsServer(Metrics(None), AccessSettings())
        port = await server.start(ServerSettings())
        others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(silent)]
        async with httpx.AsyncClient(timeout=30) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/metrics")).status_code == 200
        for _, writer in others:
            writer.close()
        await server.stop()

    asyncio.run(use())


def test_a_port_that_somebody_has_alone() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        settings = ServerSettings(metrics_port=held.getsockname()[1])
        with pytest.raises(ConfigError, match="RESNET_METRICS_PORT"):
            asyncio.run(MetricsServer(Metrics(None), AccessSettings()).start(settings))
