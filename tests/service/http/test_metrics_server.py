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
            assert (await client.post("/metrics")).status_code == 405
            assert (await client.get("/v1/models")).json()["error"]["code"] == "not_found"
        assert signal.getsignal(signal.SIGTERM) is before
        await server.stop()
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{port}/metrics")

    asyncio.run(use())


def test_a_port_that_somebody_has_alone() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        settings = ServerSettings(metrics_port=held.getsockname()[1])
        with pytest.raises(ConfigError, match="RESNET_METRICS_PORT"):
            asyncio.run(MetricsServer(Metrics(None), AccessSettings()).start(settings))
