from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.http import disconnect
from service.http.disconnect import ClientGone, UntilDisconnect
from tests.service.conftest import eventually, turns


class Client:
    """The receiving end of a connection: silent until it leaves."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.asked = 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if self.asked == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disconnect, "_LISTEN_AFTER_S", 0.0)


def test_a_quick_answer_never_listens() -> None:
    async def test() -> None:
        client = Client()
        async with UntilDisconnect(client.receive):
            await asyncio.sleep(0)
        assert client.asked == 0

    run(test)


@pytest.mark.usefixtures("at_once")
def test_a_client_that_leaves_ends_the_work() -> None:
    async def test() -> None:
        client, ended = Client(), []

        async def work() -> None:
            try:
                async with UntilDisconnect(client.receive):
                    try:
                        await asyncio.Event().wait()
                    finally:
                        ended.append(True)
            except ClientGone:
                ended.append("told")

        task = asyncio.create_task(work())
        await turns()
        assert not ended
        client.left.set()
        await asyncio.wait_for(task, 30)
        assert ended == [True, "told"]
        assert task.cancelling() == 0

    run(test)


@pytest.mark.usefixtures("at_once")
def test_a_slow_answer_stops_the_listening() -> None:
    async def test() -> None:
        client = Client()
        async with UntilDisconnect(client.receive):
            await eventually(lambda: client.asked == 2)
        await turns()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others

    run(test)


@pytest.mark.usefixtures("at_once")
def test_nothing_is_left_for_the_garbage_collector() -> None:
    """Every request under load listens, and a collection stops them all."""

    async def test() -> None:
        client, until = Client(), None
        async with (until := UntilDisconnect(client.receive)):
            await eventually(lambda: client.asked == 2)
        gone = weakref.ref(until)
        del until
        await turns()
        assert gone() is None

    gc.collect()
    gc.disable()
    try:
        run(test)
    finally:
        gc.enable()


@pytest.mark.usefixtures("at_once")
def test_errors_and_cancellations_of_others_pass() -> None:
    async def test() -> None:
        with pytest.raises(LookupError):
            async with UntilDisconnect(Client().receive):
                raise LookupError

        async def work() -> None:
            async with UntilDisconnect(Client().receive):
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def late() -> None:
            async with asyncio.timeout(0.001), UntilDisconnect(Client().receive):
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await late()

    run(test)
