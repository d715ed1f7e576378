from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.http.api import Api
from service.http.debug import DebugBody
from service.metrics import Metrics
from service.process.workers import Workers
from service.runtime import Runtime
from tests.service.conftest import Hold, a_png, some_settings
from tests.service.http.conftest import answer, check_error, serve

KEY = "0123456789abcdef"
WITH_KEY = {"authorization": f"Bearer {KEY}"}


def test_it_is_closed_without_a_key(tiny_root: Path) -> None:
    check_error(answer(tiny_root, "GET", "/debug"), 403, "forbidden")
    environ: dict[str, object] = {"admin_key": KEY}
    check_error(answer(tiny_root, "GET", "/debug", environ=environ), 401, "unauthorized")
    wrong = answer(tiny_root, "GET", "/debug", environ=environ, headers={"authorization": "Bearer no"})
    check_error(wrong, 401, "unauthorized")


def test_a_worker_at_work(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        assert (await client.post("/v1/classify", content=a_png(), headers={"x-request-id": "first"})).is_success
        hold = hold_model(runtime)
        waiting = asyncio.create_task(client.post("/v1/classify", content=a_png()))
        await hold.wait_entered()
        response = await client.get("/debug", headers=WITH_KEY)
        hold.released.set()
        assert (await waiting).is_success
        assert KEY not in response.text
        body = DebugBody.model_validate(response.json())
        assert body.worker.ready
        assert body.configuration.values["RESNET_ADMIN_KEY"] == "set"
        assert body.configuration.values["RESNET_MAX_BATCH"] == 4
        assert {"RESNET_ADMIN_KEY", "RESNET_MAX_BATCH"} < set(body.configuration.given)
        assert body.versions["onnxruntime"]
        assert (body.gate.images, body.gate.limit) == (1, 256)
        assert body.slots is not None
        assert (body.slots.count, body.slots.free) == (1, 0)
        (model,) = body.models
        assert (model.name, model.aliases, model.leases, model.queued, model.computing) == ("tiny", ["stable"], 1, 0, 1)
        (slow,) = body.slow_requests
        assert (slow.id, slow.route, slow.status, slow.images) == ("first", "/v1/classify", 200, 1)
        assert slow.bytes == len(a_png())
        stages = (slow.read_ms, slow.decode_ms, slow.queue_ms, slow.infer_ms)
        assert all(stage is not None and 0 < stage < slow.total_ms for stage in stages)

    serve(tiny_root, use, admin_key=KEY)


def test_it_answers_while_models_load(tiny_root: Path) -> None:
    async def ask() -> httpx.Response:
        runtime = Runtime(some_settings(tiny_root, admin_key=KEY), Metrics(None), Workers(None, 1))
        transport = httpx.ASGITransport(Api(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/debug", headers=WITH_KEY)

    body = DebugBody.model_validate(asyncio.run(ask()).json())
    assert (body.worker.ready, body.worker.unready) == (False, "the models are loading")
    assert body.slots is None
    assert body.models == []


@pytest.mark.parametrize("url", ["/debug?x=1"])
def test_a_query_is_refused(tiny_root: Path, url: str) -> None:
    check_error(answer(tiny_root, "GET", url, environ={"admin_key": KEY}, headers=WITH_KEY), 400, "bad_request")
