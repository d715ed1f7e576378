"""Throughput and latency of the running service, beside the bound: decode and inference without HTTP.

    python benchmarks/end_to_end.py                          # starts the service itself
    python benchmarks/end_to_end.py --url http://localhost:3000 --images photos.zip

The bound and every number of clients take turns, several rounds, so that a
machine whose speed drifts is the same for all; medians and their ratios are
printed. The bound is the fastest that the same decoder and session reach in one
process: threads that take an image and decode, transform and infer it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.load import Load, closed_loop  # noqa: E402
from export.images import read_images  # noqa: E402
from model_store.store import ModelStore, StoredModel  # noqa: E402
from model_store.transforms import to_tensor  # noqa: E402
from service.config import load_settings  # noqa: E402
from service.cpus import available_cpus  # noqa: E402
from service.decode import Decoder  # noqa: E402
from service.providers import Share  # noqa: E402
from service.session import Session  # noqa: E402

PHOTOS = ROOT.parent / "shared" / "data" / "photos.zip"
CLIENTS = (1, 2, 8, 16)


def images(source: Path | None) -> tuple[list[bytes], str]:
    """Encoded images to send, and where they are from; made ones where there are no photos."""
    source = source or (PHOTOS if PHOTOS.exists() else None)
    if source is not None:
        return [file.data for file in read_images(source)], source.name
    rng = np.random.default_rng(0)
    made = []
    for _ in range(32):
        encoded = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
        made.append(encoded.getvalue())
    return made, "made images (500x375 JPEG)"


class Bound:
    """Decode and inference of one model in this process, on all cores."""

    def __init__(self, stored: StoredModel, bodies: list[bytes], batch: int) -> None:
        settings = load_settings()
        self._threads = available_cpus()
        self._spec = stored.manifest.preprocessing
        self._decoder = Decoder(settings.decode)
        self._session = Session(stored, settings.inference.provider, Share(self._threads))
        self._session.warm_up(batch)
        self._bodies = bodies
        self._batch = batch
        self.provider = self._session.provider

    def per_second(self, seconds: float) -> float:
        """Images a second: each thread decodes a batch, then infers it, and begins again."""
        turn = itertools.cycle(self._bodies)
        lock = threading.Lock()
        end = time.perf_counter() + seconds

        def work(_: int) -> int:
            done = 0
            while time.perf_counter() < end:
                with lock:
                    bodies = [next(turn) for _ in range(self._batch)]
                self._session.logits([to_tensor(self._decoder.decode(body), self._spec) for body in bodies])
                done += self._batch
            return done

        began = time.perf_counter()
        with ThreadPoolExecutor(self._threads) as pool:
            done = sum(pool.map(work, range(self._threads)))
        return done / (time.perf_counter() - began)


@contextmanager
def service(url: str | None) -> Iterator[str]:
    """The service at ``url``, or one started for the time of the benchmark."""
    if url is not None:
        yield url
        return
    port = "3987"
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:ResNetService", "--port", port]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    started = f"http://127.0.0.1:{port}"
    try:
        _wait_ready(started, process)
        yield started
    finally:
        process.terminate()
        process.wait()


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit("the service did not start; run `make serve` to see why")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="a running service; by default one is started")
    parser.add_argument("--images", type=Path, help="folder or zip of images to send")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    options = parser.parse_args()
    console = Console(width=110)
    bodies, origin = images(options.images)
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

    with service(options.url) as url:
        model = httpx.get(f"{url}/v1/models").raise_for_status().json()["models"][0]
        stored = ModelStore(load_settings().store.model_store).resolve(model["name"], model["version"])
        batches = (1, 8)
        bounds = {batch: Bound(stored, bodies, batch) for batch in batches}
        loads: dict[int, list[Load]] = {clients: [] for clients in CLIENTS}
        limits: dict[int, list[float]] = {batch: [] for batch in batches}
        for _ in range(options.rounds):
            for batch, bound in bounds.items():
                limits[batch].append(bound.per_second(options.seconds))
            for clients in CLIENTS:
                loads[clients].append(asyncio.run(closed_loop(f"{url}/v1/classify", bodies, clients, options.seconds)))

    console.print(
        f"{model['name']} version {model['version']} ({model['architecture']}), {model['provider']} "
        f"{model['precision']}; {len(bodies)} images of {origin}; {available_cpus()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}; "
        f"medians of {options.rounds} rounds of {options.seconds:g} s"
    )
    best = max(statistics.median(values) for values in limits.values())
    table = Table("what", "images/s", "min to max", "of the bound", "p50 ms", "p99 ms", "failed", "client CPU ms/image")
    for batch, values in limits.items():
        median = statistics.median(values)
        table.add_row(
            f"bound, batch {batch}", f"{median:.1f}", f"{min(values):.1f} to {max(values):.1f}", f"{median / best:.2f}"
        )
    for clients, runs in loads.items():
        rates = [run.per_second for run in runs]
        median = statistics.median(rates)
        table.add_row(
            f"{clients} client{'s' if clients > 1 else ''}",
            f"{median:.1f}",
            f"{min(rates):.1f} to {max(rates):.1f}",
            f"{median / best:.2f}",
            f"{statistics.median(run.percentile_ms(0.5) for run in runs):.1f}",
            f"{statistics.median(run.percentile_ms(0.99) for run in runs):.1f}",
            str(sum(run.failed for run in runs)),
            f"{1000 * sum(r.client_cpu_s for r in runs) / sum(len(r.latencies_s) for r in runs):.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
