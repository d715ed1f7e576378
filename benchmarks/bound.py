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

from benchmarks.network import open_session, stored_model
from benchmarks.report import Report, common_options, shorten, spread
from benchmarks.subject import add_model_options, settings_of
from model_store.transforms import to_tensor
from service.config import Settings
from service.cpus import available_cpus
from service.decode import Decoder

BATCHES = (1, 4, 8)


@dataclass(frozen=True)
class BoundRun:
    """Images a second, and CPU milliseconds an image."""

    per_second: float
    cpu_ms: float


class _Network:
    """The default model of ``settings``, opened as the service opens it."""

    def __init__(self, settings: Settings, bodies: list[bytes]) -> None:
        self.threads = available_cpus()
        self._spec = stored_model(settings).manifest.preprocessing
        self._decoder = Decoder(settings.decode)
        self._session = open_session(settings)
        self._turn = itertools.cycle(bodies)
        self._lock = threading.Lock()

    def infer(self, batch: int) -> None:
        """Take ``batch`` images through it."""
        with self._lock:
            bodies = [next(self._turn) for _ in range(batch)]
        self._session.logits([to_tensor(self._decoder.decode(body), self._spec) for body in bodies])

    def run(self, batch: int, seconds: float) -> BoundRun:
        end = time.perf_counter() + seconds

        def work(_: int) -> int:
            done = 0
            while time.perf_counter() < end:
                self.infer(batch)
                done += batch
            return done

        cpu, began = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(self.threads) as pool:
            done = sum(pool.map(work, range(self.threads)))
        return BoundRun(done / (time.perf_counter() - began), 1000 * (time.process_time() - cpu) / done)


_network: list[_Network] = []  # the bound process's one


def _start(settings: Mapping[str, str], bodies: list[bytes], cpus: Iterable[int] | None) -> None:
    if cpus is not None:
        os.sched_setaffinity(0, cpus)
    _network.append(_Network(Settings.from_env(settings), bodies))


def _run(batch: int, seconds: float, warmup_s: float) -> BoundRun:
    _network[0].run(batch, warmup_s)
    return _network[0].run(batch, seconds)


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
