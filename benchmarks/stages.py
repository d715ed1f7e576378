"""What each stage of a request costs alone: CPU time an image, of the service's own modules.

    python -m benchmarks.stages --store models --model mine --precision int8

Every stage runs by itself, again and again, all of them in turn; what is counted is this process's CPU time, so the
threads of inference are in it and waiting is not. Their sum is what a request would cost if nothing were between
them; what it costs more in the service (`benchmarks.end_to_end`) is HTTP and the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.peer import multipart
from benchmarks.report import figure, median, spread
from benchmarks.subject import begin
from service.config import Settings

BATCHES: Final = (1, 4, 8)
_CHUNK: Final = 64 * 1024  # what uvicorn hands over of a body at a time
_SUMMED: Final = "inference, batches of 8"


@dataclass(frozen=True)
class Stage:
    """``run`` takes ``images`` images through it; ``summed`` says whether every request goes this way."""

    name: str
    run: Callable[[], Awaitable[object]]
    images: int = 1
    summed: bool = True


def _sync(call: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def run() -> object:
        return call()

    return run


@asynccontextmanager
async def stages(settings: Settings, bodies: Sequence[bytes], shared: Path) -> AsyncIterator[list[Stage]]:
    """The stages of a request to the default model of ``settings``; metrics keep their values in ``shared``."""
    # Only now, as prometheus_client looks for its folder when it is first imported.
    import numpy as np
    from starlette.datastructures import Headers

    from benchmarks.network import Network
    from model_store.transforms import to_tensor
    from service.batching.batcher import Batcher
    from service.batching.forming import Forming
    from service.batching.slots import Slots
    from service.http.answers import json_answer
    from service.http.bodies import read_body, split_images
    from service.http.routing import Call
    from service.inference.postprocess import softmax, top_k
    from service.metrics import STAGES, Metrics

    network, metrics = Network(settings), Metrics(shared)
    model = metrics.for_model("some", "1")
    turn = itertools.cycle(bodies)
    content_type, form = multipart("image")(bodies[0])
    upright = network.decoder.decode(bodies[0])
    decoded = itertools.cycle([network.decoder.decode(body) for body in bodies])
    pixels = to_tensor(upright, network.spec)
    batch = np.stack([pixels] * max(BATCHES))
    logits = network.session.run(batch)["logits"]
    results = top_k(softmax(logits)[0], network.labels, min(5, len(network.labels)))
    slots = Slots(network.session.slots)
    batcher: Batcher[int, int] = Batcher(lambda items, alone: items, slots, Forming(max(BATCHES)), model)

    async def read() -> None:
        body = next(turn)
        chunks = iter(range(0, len(body), _CHUNK))

        async def receive() -> dict[str, Any]:
            start = next(chunks)
            more = start + _CHUNK < len(body)
            return {"type": "http.request", "body": body[start : start + _CHUNK], "more_body": more}

        headers = Headers({"content-length": str(len(body))})
        await read_body(Call("POST", headers, b"", receive, math.inf, ""), 2**25, 10.0)

    def post() -> None:
        for row in softmax(logits):
            top_k(row, network.labels, min(5, len(network.labels)))

    def count() -> None:
        for stage in STAGES:
            if stage != "queue":
                metrics.stage(stage, 0.001)
        metrics.received(100_000)
        model.queued(1, 0.0)
        model.dispatched([0.001])
        model.inferred(1)
        model.queued(0, None)
        metrics.answered("/v1/classify", "some", "1", 200, 0.01)

    async def hop() -> None:
        await asyncio.gather(*(batcher.submit(number, math.inf) for number in range(max(BATCHES))))

    answer = {"model": {"name": "some", "version": "1"}, "results": [{"predictions": results}], "request_id": "0" * 32}
    form_headers = Headers({"content-type": content_type})

    def infer(size: int) -> Stage:
        name = f"inference, batches of {size}"
        return Stage(name, _sync(lambda: network.session.run(batch[:size])["logits"]), size, name == _SUMMED)

    yield [
        Stage("body: read", read),
        Stage("body: split a form", _sync(lambda: split_images(form_headers, form, 64)), 1, summed=False),
        Stage("decode", _sync(lambda: network.decoder.decode(next(turn)))),
        Stage("resize and crop", _sync(lambda: to_tensor(next(decoded), network.spec))),
        Stage("copy into the batch", _sync(lambda: np.copyto(batch[0], pixels))),
        Stage("batcher, slot and back", hop, max(BATCHES)),
        *(infer(size) for size in BATCHES),
        Stage("softmax and top-k", _sync(post), max(BATCHES)),
        Stage("JSON", _sync(lambda: json_answer(answer))),
        Stage("metrics", _sync(count)),
    ]
    await batcher.close()
    slots.close()


async def _cpu_ms(stage: Stage, seconds: float) -> float:
    """CPU milliseconds an image of ``stage``, run for ``seconds``."""
    done = 0
    end = time.perf_counter() + seconds
    began = time.process_time()
    while time.perf_counter() < end or not done:
        await stage.run()
        done += stage.images
    return 1000 * (time.process_time() - began) / done


async def measure(settings: Settings, bodies: Sequence[bytes], options: argparse.Namespace) -> tuple[Any, list[Stage]]:
    with tempfile.TemporaryDirectory() as shared:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        async with stages(settings, bodies, Path(shared)) as found:
            costs: dict[str, list[float]] = {stage.name: [] for stage in found}
            for stage in found:
                await _cpu_ms(stage, options.seconds / 4)  # inference compiles on its first run of a size
            for _ in range(options.rounds):
                for stage in found:
                    costs[stage.name].append(await _cpu_ms(stage, options.seconds))
            return costs, found


def main() -> None:
    begun = begin("stages", __doc__, seconds=0.5, rounds=5, smoke_s=0.05)
    options, settings, images, report = begun.options, begun.settings, begun.images, begun.report
    costs, found = asyncio.run(measure(Settings.from_env(settings), images.bodies, options))
    total = sum(median(costs[stage.name]) for stage in found if stage.summed)
    report.table(
        "CPU time of each stage alone, an image",
        ["stage", "ms", "of the sum"],
        [
            [
                stage.name,
                spread(costs[stage.name]),
                f"{100 * median(costs[stage.name]) / total:.1f} %" if stage.summed else "not in it",
            ]
            for stage in found
        ]
        + [["sum", figure(total), "100 %"]],
    )
    report.data["stages_ms"] = costs
    report.finish(options.json)


if __name__ == "__main__":
    main()
