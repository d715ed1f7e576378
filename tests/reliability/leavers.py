"""Work for clients that left is dropped: of 64 queued requests whose clients go, at most one batch is computed.

python -m tests.reliability.leavers
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import httpx
import numpy as np
import tritonclient.grpc.aio as grpc_aio

from benchmarks.connection import request_bytes
from benchmarks.report import Report, Target
from tests.end_to_end.conftest import free_port, picture, until
from tests.reliability.harness import (
    Subject,
    conclude,
    describe,
    json_option,
    serving,
    settings_of,
    settings_option,
    total,
)

CLIENTS: Final = 64
MAX_BATCH: Final = 8

_BEFORE: Final = 24
"""Images of the one request that keeps the slot while the others queue: some seconds of work."""

_PATIENCE_S: Final = 1.0
_LIMIT_S: Final = 60.0

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


def measure(chosen: dict[str, str], told: Callable[[Subject], None] = lambda subject: None) -> list[Left]:
    """Every kind of leaving, each on a service that did nothing before."""
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
    with serving(**common) as subject:
        told(subject)
        found.append(asyncio.run(_queued("HTTP, connection reset", subject, lambda: _connections(subject))))
    with serving(**common) as subject:
        found.append(asyncio.run(_queued("gRPC, call cancelled", subject, lambda: _calls(subject, port))))
    with serving(**{**common, "RESNET_DEADLINE_S": str(_PATIENCE_S)}) as subject:
        found.append(asyncio.run(_expired("HTTP, the service's deadline", subject, _post(subject))))
    with serving(**common) as subject:
        found.append(asyncio.run(_expired("gRPC, the client's deadline", subject, _infer_all(subject, port))))
    return found


async def _until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, condition, what)


def _computed(subject: Subject) -> int:
    return round(total(subject.metrics(), "resnet_batch_images_sum"))


def _counted(subject: Subject, reason: str) -> int:
    return round(total(subject.metrics(), "resnet_rejected_total", reason=reason))


def _received(subject: Subject) -> int:
    """Requests whose bodies were read; their images are queued in the same step."""
    return round(total(subject.metrics(), "resnet_stage_seconds_count", stage="read"))


async def _queued(kind: str, subject: Subject, send: Callable[[], Awaitable[Leave]]) -> Left:
    """Clients queue behind a long request, and go while it is computed."""
    async with httpx.AsyncClient(base_url=subject.url, timeout=_LIMIT_S) as client:
        files = [("image", _slow_image())] * _BEFORE
        before = asyncio.create_task(client.post("/v1/classify", files=files))
        await _until(lambda: _received(subject) == 1, "the long request")
        leave = await send()
        await _until(lambda: _received(subject) == 1 + CLIENTS, "their requests")
        assert not before.done(), "the long request was over before they left"
        began_s = time.monotonic()
        await leave()
        await _until(lambda: _counted(subject, "cancelled") >= CLIENTS, "the count of those that left")
        seconds = time.monotonic() - began_s
        assert (await before).status_code == 200
    await _until(lambda: not total(subject.metrics(), "resnet_slots_busy"), "the end of the last batch")
    return Left(kind, "cancelled", CLIENTS, _counted(subject, "cancelled"), _computed(subject) - _BEFORE, seconds)


async def _connections(subject: Subject) -> Leave:
    """Connections that send a request each; they leave by a reset."""
    request = request_bytes(f"{subject.url}/v1/classify", picture(2))
    writers = [writer for _, writer in [await asyncio.open_connection(*subject.address) for _ in range(CLIENTS)]]
    for writer in writers:
        writer.write(request)
    await asyncio.gather(*(writer.drain() for writer in writers))

    async def leave() -> None:
        for writer in writers:
            writer.transport.abort()

    return leave


async def _calls(subject: Subject, port: int) -> Leave:
    """Calls by gRPC; they leave by cancelling them."""
    stack = AsyncExitStack()
    client = await stack.enter_async_context(grpc_aio.InferenceServerClient(f"127.0.0.1:{port}"))
    infer = await asyncio.to_thread(_infer, subject, client, picture(2))
    tasks = [asyncio.create_task(infer()) for _ in range(CLIENTS)]

    async def leave() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await stack.aclose()

    return leave


def _infer(subject: Subject, client: Any, image: bytes, timeout_s: float | None = None) -> Callable[[], Any]:
    images = np.empty(1, np.object_)
    images[0] = image
    tensor = grpc_aio.InferInput("image", [1], "BYTES").set_data_from_numpy(images)
    return functools.partial(client.infer, subject.models()[0]["name"], [tensor], client_timeout=timeout_s)


async def _expired(kind: str, subject: Subject, sending: Awaitable[list[bool]]) -> Left:
    """More work than fits into the deadline: what is not done by then is never done."""
    began_s = time.monotonic()
    answered = await sending
    missed = len(answered) - sum(answered)
    await _until(lambda: _counted(subject, "deadline") + _counted(subject, "cancelled") >= missed, "their count")
    seconds = time.monotonic() - began_s - _PATIENCE_S
    await _until(lambda: not total(subject.metrics(), "resnet_slots_busy"), "the end of the last batch")
    computed = _computed(subject) - sum(answered)
    return Left(kind, "deadline", missed, _counted(subject, "deadline"), computed, seconds)


async def _post(subject: Subject) -> list[bool]:
    """Whether each of 64 slow images was answered in time."""
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=subject.url, timeout=_LIMIT_S, limits=limits) as client:
        sent = (client.post("/v1/classify", content=_slow_image()) for _ in range(CLIENTS))
        return [answer.status_code == 200 for answer in await asyncio.gather(*sent)]


async def _infer_all(subject: Subject, port: int) -> list[bool]:
    """The same by gRPC, with a deadline of the clients'."""
    async with grpc_aio.InferenceServerClient(f"127.0.0.1:{port}") as client:
        infer = await asyncio.to_thread(_infer, subject, client, _slow_image(), _PATIENCE_S)
        outcomes = await asyncio.gather(*(infer() for _ in range(CLIENTS)), return_exceptions=True)
        return [not isinstance(outcome, BaseException) for outcome in outcomes]


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


@click.command()
@settings_option
@json_option
def main(settings_given: tuple[str, ...], json: Path | None) -> None:
    """Let 64 clients queue and leave, by HTTP and gRPC, and by deadlines that pass."""
    report = Report("reliability.leavers")
    fill(report, measure(settings_of(settings_given), lambda subject: describe(report, subject)))
    conclude(report, json)


if __name__ == "__main__":
    main()
