"""A full queue, deadlines that pass, clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.runtime import Runtime
from tests.service.conftest import Hold, a_png, eventually
from tests.service.http.conftest import URL, Exchange, check_error, files, sample, serve

# Load and deadlines


def test_beyond_the_queue_requests_are_refused_before_their_body(
    tiny_root: Path, hold_model: Callable[[Runtime], Hold]
) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        accepted = [asyncio.create_task(client.post(URL, content=a_png())) for _ in range(2)]
        await hold.wait_entered()
        await eventually(lambda: runtime.gate.images == 2)
        refused = Exchange(runtime)
        check_error(await refused.response(), 429, "overloaded")
        assert refused.received == 0
        hold.released.set()
        assert [(await task).status_code for task in accepted] == [200, 200]
        assert (await client.post(URL, content=a_png())).status_code == 200

    serve(tiny_root, use, max_queue=2, max_images=2)


def test_a_request_of_many_counts_each_image(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        accepted = asyncio.create_task(client.post(URL, files=files(a_png(), a_png())))
        await hold.wait_entered()
        assert runtime.gate.images == 2
        check_error(await client.post(URL, files=files(a_png(), a_png())), 429, "overloaded")
        assert runtime.gate.images == 2
        hold.released.set()
        assert (await accepted).status_code == 200

    serve(tiny_root, use, max_queue=3, max_images=3)


def test_beyond_the_deadline_it_is_504(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        first = await client.post(URL, content=a_png(0))
        assert "within the time" in check_error(first, 504, "deadline_exceeded")
        check_error(await client.post(URL, files=files(a_png(1), a_png(2))), 504, "deadline_exceeded")
        assert runtime.gate.images == 0
        hold.released.set()
        await eventually(lambda: runtime.models[0]._batcher._slots.free == 1)
        assert len(hold.batches) <= 1, "an image was computed after its deadline"

    serve(tiny_root, use, deadline_s=0.2)


def test_a_body_that_does_not_come_in_time_is_the_clients_fault(tiny_root: Path) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime)
        exchange.say(b"x", more=True)
        check_error(await exchange.response(), 408, "slow_client")

    serve(tiny_root, use, deadline_s=0.05)


# Clients that leave


@pytest.mark.parametrize("many", [False, True])
def test_a_client_that_leaves_is_not_computed_for(
    tiny_root: Path, hold_model: Callable[[Runtime], Hold], many: bool
) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        busy = asyncio.create_task(client.post(URL, content=a_png(0)))
        await hold.wait_entered()
        request = httpx.Request(
            "POST", "http://test", **({"files": files(a_png(1), a_png(2))} if many else {"content": a_png(1)})
        )
        exchange = Exchange(runtime, dict(request.headers))
        exchange.say(request.read())
        await eventually(lambda: len(runtime.models[0]._batcher._queue) == 1 + many, "the queued images")
        exchange.leave()
        await asyncio.wait_for(exchange.task, 30)
        # An end, though nobody hears it: middleware around the application waits for one.
        assert (await exchange.response()).status_code == 499
        assert runtime.gate.images == 1
        hold.released.set()
        assert (await busy).status_code == 200
        assert (await client.post(URL, content=a_png(3))).status_code == 200
        seen = [np.array(image).tolist() for batch in hold.batches for image in batch]
        assert len(seen) == 2, "an image of a client that had left was computed"
        page = (await client.get("/metrics")).text
        assert sample(page, "resnet_requests_total", code="499", route=URL, model="tiny") == 1

    serve(tiny_root, use)


def test_a_client_that_leaves_while_it_sends(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime)
        exchange.say(a_png()[:20], more=True)
        exchange.leave()
        await asyncio.wait_for(exchange.task, 30)
        # An end, though nobody hears it: middleware around the application waits for one.
        assert (await exchange.response()).status_code == 499
        assert runtime.gate.images == 0
        assert sample((await client.get("/metrics")).text, "resnet_requests_total", code="499") == 1

    serve(tiny_root, use)


def test_a_server_that_cancels_the_request_is_obeyed(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        exchange = Exchange(runtime)
        exchange.say(a_png())
        await hold.wait_entered()
        exchange.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.task
        assert runtime.gate.images == 0
        hold.released.set()

    serve(tiny_root, use)
