"""Work for clients that left is dropped: of 64 queued requests whose clients go, at most one batch is computed.

    python -m tests.reliability.leavers

They leave by HTTP and gRPC, and by deadlines that pass, the service's and their own.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
import tritonclient.grpc.aio as grpc_aio

from benchmarks.connection import request_bytes
from benchmarks.report import Report, Target
from benchmarks.server import HOST, Server, free_port, total
from tests.end_to_end.conftest import picture, until
from tests.reliability.harness import describe, program, serving

CLIENTS: Final = 64
MAX_BATCH: Final = 8

_BEFORE: Final = 32
"""Images of the one request that keeps the slot while the others queue, and their patience ends: seconds of work."""

_PATIENCE_S: Final = 1.0
_LIMIT_S: Final = 600.0  # so long that the gate, which knows how slow the images before were, lets all wait

Leave = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Left:
    """What came of one kind of leaving.

    counted  -- how many of the ``clients`` that got no answer ``resnet_rejected_total`` knows, for this ``reason``.
    computed -- their images that were computed although nobody waited.
    seconds  -- from their leaving until all were counted.
    """

    kind: str
    reason: str
    clients: int
    counted: int
    computed: int
    seconds: float


@functools.cache
def _slow_image() -> bytes:
    """About a tenth of a second of decoding, in few bytes."""
    return picture(1, (3000, 2400), "WEBP")


def measure(chosen: dict[str, str], told: Callable[[Server], None] = lambda server: None) -> list[Left]:
    """Every kind of leaving, one after the other; the service's deadline is another service's."""
    port = free_port()
    common = {
        "RESNET_SLOTS": "1",
        "RESNET_DECODE_THREADS": "0",
        "RESNET_MAX_BATCH": str(MAX_BATCH),
        "RESNET_DEADLINE_S": str(_LIMIT_S),
        "RESNET_GRPC_PORT": str(port),
        **chosen,
    }
    found = []
    with serving(**common) as server:
        told(server)
        found.append(asyncio.run(_queued("HTTP, connection reset", server, lambda: _connections(server))))
        found.append(asyncio.run(_queued("gRPC, call cancelled", server, lambda: _calls(server, port))))
        expire = functools.partial(_calls, server, port, _PATIENCE_S)
        found.append(asyncio.run(_queued("gRPC, the client's deadline", server, expire, "deadline")))
    with serving(**{**common, "RESNET_DEADLINE_S": str(_PATIENCE_S)}) as server:
        found.append(asyncio.run(_expired("HTTP, the service's deadline", server)))
    return found


async def _until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, condition, what)


class _Since:
    """What ``server`` has counted since this was made."""

    def __init__(self, server: Server) -> None:
        self._server, self._before = server, server.metrics()

    def _more(self, name: str, **labels: str) -> int:
        return round(total(self._server.metrics(), name, **labels) - total(self._before, name, **labels))

    def computed(self) -> int:
        return self._more("resnet_batch_images_sum")

    def counted(self, reason: str) -> int:
        return self._more("resnet_rejected_total", reason=reason)

    def received(self) -> int:
        """Requests whose bodies were read; their images are queued in the same step."""
        return self._more("resnet_stage_seconds_count", stage="read")


async def _queued(kind: str, server: Server, send: Callable[[], Awaitable[Leave]], reason: str = "cancelled") -> Left:
    """Clients queue behind a long request, and go while it is computed."""
    since = _Since(server)
    async with httpx.AsyncClient(base_url=server.url, timeout=_LIMIT_S) as client:
        files = [("image", _slow_image())] * _BEFORE
        before = asyncio.create_task(client.post("/v1/classify", files=files))
        await _until(lambda: since.received() == 1, "the long request")
        leave = await send()
        await _until(lambda: since.received() == 1 + CLIENTS, "their requests")
        assert not before.done(), "the long request was over before they left"
        began_s = time.monotonic()
        await leave()
        await _until(lambda: since.counted(reason) >= CLIENTS, "the count of those that left")
        seconds = time.monotonic() - began_s
        assert (await before).status_code == 200
    await _until(lambda: not total(server.metrics(), "resnet_slots_busy"), "the end of the last batch")
    return Left(kind, reason, CLIENTS, since.counted(reason), since.computed() - _BEFORE, seconds)


async def _connections(server: Server) -> Leave:
    """Connections that send a request each; they leave by a reset."""
    request = request_bytes(server.classify, picture(2))
    writers = [writer for _, writer in [await asyncio.open_connection(HOST, server.port) for _ in range(CLIENTS)]]
    for writer in writers:
        writer.write(request)
    await asyncio.gather(*(writer.drain() for writer in writers))

    async def leave() -> None:
        for writer in writers:
            writer.transport.abort()

    return leave


async def _calls(server: Server, port: int, patience_s: float | None = None) -> Leave:
    """Calls by gRPC; they leave by cancelling them, or have left by their deadline."""
    stack = AsyncExitStack()
    client = await stack.enter_async_context(grpc_aio.InferenceServerClient(f"{HOST}:{port}"))
    infer = await asyncio.to_thread(_infer, server, client, picture(2), patience_s)
    tasks = [asyncio.create_task(infer()) for _ in range(CLIENTS)]
    if patience_s is not None:
        await asyncio.wait(tasks)

    async def leave() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await stack.aclose()

    return leave


def _infer(server: Server, client: Any, image: bytes, timeout_s: float | None = None) -> Callable[[], Any]:
    images = np.empty(1, np.object_)
    images[0] = image
    tensor = grpc_aio.InferInput("image", [1], "BYTES").set_data_from_numpy(images)
    return functools.partial(client.infer, server.models()[0]["name"], [tensor], client_timeout=timeout_s)


async def _expired(kind: str, server: Server) -> Left:
    """More work than fits into the deadline: what is not done by then is never done."""
    since = _Since(server)
    began_s = time.monotonic()
    answered = await _post(server)
    missed = len(answered) - sum(answered)
    await _until(lambda: since.counted("deadline") >= missed, "their count")
    seconds = time.monotonic() - began_s - _PATIENCE_S
    await _until(lambda: not total(server.metrics(), "resnet_slots_busy"), "the end of the last batch")
    computed = since.computed() - sum(answered)
    return Left(kind, "deadline", missed, since.counted("deadline"), computed, seconds)


async def _post(server: Server) -> list[bool]:
    """Whether each of 64 slow images was answered in time."""
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=server.url, timeout=_LIMIT_S, limits=limits) as client:
        sent = (client.post("/v1/classify", content=_slow_image()) for _ in range(CLIENTS))
        return [answer.status_code == 200 for answer in await asyncio.gather(*sent)]


def fill(report: Report, found: list[Left]) -> None:
    """The figures and the promises."""
    head = ["how they left", "without an answer", "counted", "reason", "computed all the same", "counted after s"]
    rows = [
        [one.kind, str(one.clients), str(one.counted), one.reason, str(one.computed), f"{one.seconds:.2f}"]
        for one in found
    ]
    report.table(f"{CLIENTS} clients", head, rows)
    for one in found:
        report.hold(
            [
                Target(f"{one.kind}: images computed", one.computed, MAX_BATCH, at_least=False, note="a batch: 8"),
                Target(f"{one.kind}: counted by reason", one.counted, one.clients, at_least=True),
            ]
        )


@program
def main(settings: dict[str, str]) -> Report:
    report = Report("reliability.leavers")
    fill(report, measure(settings, lambda server: describe(report, server)))
    return report


if __name__ == "__main__":
    main()
