"""What metrics add to a request: CPU time of what the service counts for it.

    python -m benchmarks.metrics_cost --store models --model mine

A real request to `/v1/classify` goes through the service's own routes, batcher and slots, in this process; what it
tells its metrics on the way is noted. Then the same calls are made again and again, and nothing else. What happens once
a second (sampling, and handing all counts over to prometheus_client's files) is measured beside it, and so is a page.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.report import Target, figure, median, spread
from benchmarks.subject import begin
from service.config import Settings

LIMIT_US: Final = 30.0
RATE: Final = 100  # requests a second that share what happens once in it
_TOLD: Final = ("received", "stage", "answered")
_MODEL_TOLD: Final = ("queued", "dispatched", "inferred", "predicted")

Call = Callable[[], object]


class Told:
    """Stands before some methods of ``owner`` and notes how they are called."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def listen(self, owner: Any, names: tuple[str, ...]) -> None:
        for name in names:
            setattr(owner, name, partial(self._noted, getattr(owner, name)))

    def _noted(self, method: Callable[..., Any], *arguments: Any) -> Any:
        self.calls.append(partial(method, *arguments))
        return method(*arguments)


async def calls_of_a_request(settings: Settings, body: bytes, shared: Path) -> tuple[list[Call], dict[str, Call]]:
    """What one request tells the metrics, and what else is measured, by name."""
    # Only now, as prometheus_client looks for its folder when it is first imported.
    from service.http.api import Api
    from service.metrics import Metrics
    from service.process.workers import Workers
    from service.runtime import Runtime

    metrics, told = Metrics(shared), Told()
    runtime = Runtime(settings, metrics, Workers(None, 1))
    try:
        await runtime.start()
        api = Api(runtime)
        await _ask(api, body)  # what is made once, as the first time a label is met
        told.listen(metrics, _TOLD)
        told.listen(runtime.models[0]._counts, _MODEL_TOLD)
        await _ask(api, body)
        calls = [*told.calls]
    finally:
        await runtime.stop()
    sample = partial(metrics.sample, slots=2, slots_busy=1, images_held=1)
    return calls, {"once a second: sample, hand over": sample, "a page, as /metrics": metrics.page}


async def _ask(api: Any, body: bytes) -> None:
    statuses: list[int] = []
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.Event().wait()  # the client stays
        return parts.pop()

    async def send(message: dict[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    headers = [(b"content-length", str(len(body)).encode())]
    await api({"type": "http", "method": "POST", "path": "/v1/classify", "headers": headers}, receive, send)
    if statuses != [200]:
        raise SystemExit(f"the request was answered with {statuses}")


def _cpu_us(call: Call, seconds: float) -> float:
    """CPU microseconds of one ``call``, made for ``seconds``."""
    done, end, began = 0, time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < end or not done:
        for _ in range(20):
            call()
        done += 20
    return 1e6 * (time.process_time() - began) / done


def main() -> None:
    begun = begin("metrics_cost", __doc__, seconds=0.3, rounds=7, smoke_s=0.02)
    options, settings, images, report = begun.options, begun.settings, begun.images, begun.report
    with tempfile.TemporaryDirectory() as shared:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        calls, others = asyncio.run(calls_of_a_request(Settings.from_env(settings), images.bodies[0], Path(shared)))

        def request() -> None:
            for call in calls:
                call()

        measured: dict[str, Call] = {f"a request: {len(calls)} calls": request, **others}
        costs: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(options.rounds):
            for name, call in measured.items():
                costs[name].append(_cpu_us(call, options.seconds))
    report.table("CPU time", ["what", "microseconds"], [[name, spread(found)] for name, found in costs.items()])
    once, second = (median(costs[name]) for name in [*measured][:2])
    added = once + second / RATE
    report.hold([Target(f"metrics of a request, at {RATE} requests a second", added, LIMIT_US, False, "us")])
    report.notes.append(f"{figure(once)} us of its own and {figure(second / RATE)} us of what happens once a second.")
    report.data["microseconds"] = costs
    report.finish(options.json)


if __name__ == "__main__":
    main()
