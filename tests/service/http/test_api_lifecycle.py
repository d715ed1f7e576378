"""What is answered while the service starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.runtime import Runtime
from tests.service.conftest import Hold, a_png, eventually, turns
from tests.service.http.conftest import URL, Exchange, check_error, serve


def test_before_the_models_are_loaded_it_is_503(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        monkeypatch.setattr(runtime, "_state", "the models are loading")
        assert "loading" in check_error(await client.post(URL, content=a_png()), 503, "not_ready")
        assert "loading" in check_error(await client.get("/v1/models"), 503, "not_ready")
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/")).status_code == 200

    serve(tiny_root, use)


def test_while_it_stops_accepted_requests_are_answered(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        accepted = [asyncio.create_task(client.post(URL, content=a_png(i))) for i in range(3)]
        await hold.wait_entered()
        await eventually(lambda: len(runtime.models[0]._batcher._queue) == 2)
        stopping = asyncio.create_task(runtime.stop())
        await turns()
        late = await client.post(URL, content=a_png())
        hold.released.set()
        await stopping
        assert [(await task).status_code for task in accepted] == [200] * 3
        check_error(late, 503, "shutting_down")

    serve(tiny_root, use)


def test_a_body_that_comes_after_the_stop_is_answered_503(tiny_root: Path) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime)
        exchange.say(a_png()[:20], more=True)
        await turns()
        await runtime.stop()
        exchange.say(a_png()[20:])
        check_error(await exchange.response(), 503, "shutting_down")

    serve(tiny_root, use)
