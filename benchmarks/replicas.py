"""How many replicas a traffic takes: service times measured here, the queueing simulated, and held against the service.

    python -m benchmarks.replicas --p99-ms 50 --traffic 10 1000 1000000

The parts: ``plan`` is the table of replicas; ``check`` runs the service with one worker and with two, sends it Poisson
traffic, and shows what it measured beside what was predicted.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import random
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Final

from benchmarks.images import load_images
from benchmarks.load import Client
from benchmarks.network import Network
from benchmarks.queueing import Replica, bearable, simulate
from benchmarks.report import Report, common_options, figure, parse_with_parts, shorten
from benchmarks.server import bento
from benchmarks.subject import add_model_options, settings_of
from service.config import Settings
from service.process.cpus import available_cpus

_OVERHEAD_S: Final = 0.0004
"""CPU time an image beyond decode and inference: docs/performance.md."""
_IMAGES: Final = 20_000
_SHARES: Final = (0.4, 0.6)  # of the most that a replica does


def measure_times(settings: Mapping[str, str], bodies: list[bytes], seconds: float) -> dict[int, list[float]]:
    """Seconds for a batch of each size, decode and inference, while all cores are at it; in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(_times, settings, bodies, seconds).result()


def _times(given: Mapping[str, str], bodies: list[bytes], seconds: float) -> dict[int, list[float]]:
    settings = Settings.from_env(given)
    network, most = Network(settings), settings.inference.max_batch
    network.session.warm_up(most)
    end = time.perf_counter() + seconds

    def work(seed: int) -> list[tuple[int, float]]:
        chance, pixels = random.Random(seed), network.batch(most)
        found: list[tuple[int, float]] = []
        while time.perf_counter() < end or len(found) < 2 * most:
            size = chance.randint(1, most) if len(found) >= most else len(found) + 1
            images = chance.choices(bodies, k=size)
            began = time.perf_counter()
            network.infer(images, pixels[:size])
            found.append((size, time.perf_counter() - began))
        return found

    with ThreadPoolExecutor(network.threads) as pool:
        found = [one for samples in pool.map(work, range(network.threads)) for one in samples]
    return {size: [took for of, took in found if of == size] for size in range(1, most + 1)}


def plan(report: Report, replica: Replica, traffic: list[float], p99_ms: float, images: int) -> None:
    """The table of replicas for each of ``traffic``, images a second."""
    share = bearable(replica, p99_ms / 1000, images)
    report.data["bearable"] = share
    if not share:
        report.notes.append(f"A p99 of {p99_ms:g} ms cannot be had: an image alone takes longer on such a replica.")
        return
    rows = []
    for rate in traffic:
        count = max(1, math.ceil(rate / share))
        seen = simulate(replica, rate / count, images)
        cores = replica.workers * replica.slots * (count + 1)
        ms = [figure(1000 * seen.percentile_s(at)) for at in (0.5, 0.99)]
        rows.append([f"{rate:g}", f"{count} + 1", str(cores), f"{seen.busy:.0%}", *ms])
    report.table(
        f"Replicas for a p99 of {p99_ms:g} ms; one takes {figure(share)} images/s, at most {figure(replica.most)}",
        ["images/s", "replicas, and one to spare", "cores", "slots busy", "p50, ms", "p99, ms"],
        rows,
    )


def check(
    report: Report, settings: Mapping[str, str], bodies: list[bytes], replicas: list[Replica], seconds: float
) -> None:
    """The service, with one worker and with two, under Poisson traffic, beside its prediction."""
    rows, found = [], []
    for replica in replicas:
        with (
            bento({**settings, "RESNET_WORKERS": str(replica.workers)}) as server,
            Client(bodies) as client,
        ):
            for share in _SHARES:
                rate = share * replica.most
                measured = client.open(server.classify, rate, seconds)
                # Here the client's work is done by the same cores.
                shared_s = replica.overhead_s + measured.client_cpu_ms / 1000
                predicted = simulate(dataclasses.replace(replica, overhead_s=shared_s), rate, _IMAGES)
                pairs = [(measured.percentile_ms(at), 1000 * predicted.percentile_s(at)) for at in (0.5, 0.99)]
                found.append({"workers": replica.workers, "rate": rate, "measured_predicted_ms": pairs})
                cells = [f"{figure(was)} / {figure(said)}" for was, said in pairs]
                rows.append([str(replica.workers), f"{figure(rate)} ({share:.0%})", *cells, str(measured.failed)])
    report.data["check"] = found
    report.table(
        "The service beside its prediction: measured / predicted",
        ["workers", "images/s (of the most)", "p50, ms", "p99, ms", "failed"],
        rows,
    )


def main() -> None:
    parser = common_options("replicas", __doc__)
    add_model_options(parser)
    parser.add_argument("--traffic", type=float, nargs="+", default=[10, 100, 1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--p99-ms", type=float, default=50.0, help="the goal (%(default)s)")
    options, parts = parse_with_parts(parser, ("plan", "check"))
    options = shorten(options)
    images, settings = load_images(options.images), settings_of(options)
    times = measure_times(settings, images.bodies, options.seconds)
    cores = available_cpus()
    # A worker that is alone has all cores as slots; of two each has half of them.
    replicas = [Replica(count, max(1, cores // count), max(times), times, _OVERHEAD_S) for count in (1, 2)]
    report = Report("replicas", options.smoke, subject={"images": images.origin})
    report.data["times_ms"] = {size: 1000 * sum(took) / len(took) for size, took in times.items()}
    if "plan" in parts:
        plan(report, replicas[0], options.traffic, options.p99_ms, 1000 if options.smoke else _IMAGES)
    if "check" in parts:
        check(report, settings, images.bodies, replicas, options.seconds)
    report.finish(options.json)


if __name__ == "__main__":
    main()
