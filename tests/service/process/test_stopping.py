from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from service.process import stopping as module
from service.process.stopping import Stopping


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


async def told(closed: asyncio.Event, *, drain_s: float, was_ready: bool = True) -> tuple[Stopping, list[str]]:
    """A worker that was sent SIGTERM, and what happened to it, in order."""
    happened: list[str] = []

    def unready() -> bool:
        happened.append("unready")
        return was_ready

    def server_stops(number: int, frame: object) -> None:
        del number, frame
        happened.append("closed")
        closed.set()

    signal.signal(signal.SIGTERM, server_stops)
    stopping = Stopping(drain_s, 3600, unready)
    stopping.install()
    stopping.also(lambda: happened.append("closed, too"))
    os.kill(os.getpid(), signal.SIGTERM)
    await stopping.told.wait()
    return stopping, happened


async def close_header(stopping: Stopping) -> list[tuple[bytes, bytes]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await stopping.closing(send)({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await stopping.closing(send)({"type": "http.response.body", "body": b"x"})
    assert sent[1] == {"type": "http.response.body", "body": b"x"}
    headers: list[tuple[bytes, bytes]] = sent[0]["headers"]
    return headers


def test_readiness_turns_before_the_port_closes() -> None:
    async def main() -> None:
        closed = asyncio.Event()
        stopping, happened = await told(closed, drain_s=3600)
        assert stopping.began
        assert happened == ["unready"]
        assert await close_header(stopping) == [(b"a", b"b"), (b"connection", b"close")]
        os.kill(os.getpid(), signal.SIGTERM)  # in a hurry
        await closed.wait()
        assert happened == ["unready", "closed", "closed, too"]

    asyncio.run(main())


@pytest.mark.parametrize(("drain_s", "was_ready"), [(0.01, True), (3600, False)])
def test_the_port_closes_after_the_drain_or_at_once_where_nobody_sends(drain_s: float, was_ready: bool) -> None:
    async def main() -> None:
        closed = asyncio.Event()
        _, happened = await told(closed, drain_s=drain_s, was_ready=was_ready)
        await closed.wait()
        assert happened == ["unready", "closed", "closed, too"]

    asyncio.run(main())


def test_the_process_ends_at_the_limit_whatever_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[int] = []

    async def main() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def end(status: int) -> None:
            statuses.append(status)
            loop.call_soon_threadsafe(ended.set)

        monkeypatch.setattr(module.os, "_exit", end)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        Stopping(0, 0.01, lambda: True).install()
        os.kill(os.getpid(), signal.SIGTERM)
        await ended.wait()

    asyncio.run(main())
    assert statuses == [1]


def test_without_a_handler_there_is_nothing_to_come_before() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    async def main() -> None:
        Stopping(1, 1, lambda: True).install()

    asyncio.run(main())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
