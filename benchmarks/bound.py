"""The bound: decode and inference in one process, without HTTP, as fast as this code can do them.

    python -m benchmarks.bound --precision int8

A thread a core takes a batch of encoded images, decodes, transforms and infers
them, and begins again. The service cannot be faster than that; how close it
comes is what it costs.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from benchmarks.network import Network
from benchmarks.report import Report, common_options, shorten, spread
from benchmarks.subject import add_model_options, settings_of
from service.config import Settings

BATCHES = (1, 4, 8)


@dataclass(frozen=True)
class BoundRun:
    """Images a second, and CPU milliseconds an image."""

    per_second: float
    cpu_ms: float


class _Turns:
    """The network, and the images in turn."""

    def __init__(self, settings: Settings, bodies: list[bytes]) -> None:
        self._network = Network(settings)
        self._turn = itertools.cycle(bodies)
        self._lock = threading.Lock()

    def run(self, batch: int, seconds: float) -> BoundRun:
        end = time.perf_counter() + seconds

        def work(_: int) -> int:
            done = 0
            pixels = self._network.batch(batch)
            while time.perf_counter() < end:
                with self._lock:
                    bodies = [next(self._turn) for _ in range(batch)]
                self._network.infer(bodies, pixels)
                done += batch
            return done

        cpu, began = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(self._network.threads) as pool:
            done = sum(pool.map(work, range(self._network.threads)))
        return BoundRun(done / (time.perf_counter() - began), 1000 * (time.process_time() - cpu) / done)


_turns: list[_Turns] = []  # the bound process's one


def _start(settings: Mapping[str, str], bodies: list[bytes], cpus: Iterable[int] | None) -> None:
    if cpus is not None:
        os.sched_setaffinity(0, cpus)
    _turns.append(_Turns(Settings.from_env(settings), bodies))


def _run(batch: int, seconds: float, warmup_s: float) -> BoundRun:
    _turns[0].run(batch, warmup_s)
    return _turns[0].run(batch, seconds)


class Bound:
    """The bound in a process of its own, so that it shares nothing with what measures it."""

    def __init__(self, settings: Mapping[str, str], bodies: list[bytes], cpus: Iterable[int] | None = None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, spawn, _start, (settings, bodies, None if cpus is None else list(cpus)))

    def run(self, batch: int, seconds: float, warmup_s: float = 0.5) -> BoundRun:
        return self._pool.submit(_run, batch, seconds, warmup_s).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()


def main() -> None:
    from benchmarks.images import load_images

    parser = common_options("bound", __doc__)
    add_model_options(parser)
    options = shorten(parser.parse_args())
    images = load_images(options.images)
    report = Report("bound", options.smoke, subject={"images": images.origin})
    runs: dict[int, list[BoundRun]] = {batch: [] for batch in BATCHES}
    with Bound(settings_of(options), images.bodies) as bound:
        for _ in range(options.rounds):
            for batch, found in runs.items():
                found.append(bound.run(batch, options.seconds))
    report.table(
        "Decode and inference without HTTP",
        ["batch", "images/s", "CPU ms an image"],
        [
            [str(batch), spread([run.per_second for run in found]), spread([run.cpu_ms for run in found])]
            for batch, found in runs.items()
        ],
    )
    report.finish(options.json)


if __name__ == "__main__":
    main()
