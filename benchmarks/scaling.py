"""How cost and throughput grow with cores, batches, image sizes and models.

    python -m benchmarks.scaling --store models --model mine

Parts (all by default): cores 1 to N for service and client together; batch sizes of inference alone; image sizes
through the service; 1 to 8 models in one service, of which all are asked in turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.bound import Bound
from benchmarks.images import Images, load_images, made_images
from benchmarks.load import Client
from benchmarks.processes import over_cores
from benchmarks.report import Report, common_options, figure, median, parse_with_parts, ratios, spread
from benchmarks.server import bento
from benchmarks.subject import add_model_options, settings_of
from benchmarks.throughput import BUSY_CLIENTS, Plan
from model_store.store import ModelStore
from service.config import Settings, variable
from service.runtime import chosen_models

BATCHES: Final = (1, 2, 4, 8, 16, 32)
SIZES: Final = ((64, 64), (160, 120), (320, 240), (640, 480), (1280, 960), (2560, 1920), (4000, 3000))
MODELS: Final = (1, 2, 4, 8)


def _cores(report: Report, settings: Mapping[str, str], images: Images, plan: Plan) -> None:
    counts = range(1, len(os.sched_getaffinity(0)) + 1)
    loads = over_cores(settings, images.bodies, counts, plan).loads
    rates = {count: [load.per_second for load in found] for count, found in loads.items()}
    report.table(
        f"Cores, {BUSY_CLIENTS} clients; the client is kept to the same cores",
        ["cores", "images/s", "over one core", "p50 ms"],
        [
            [
                str(count),
                spread(rates[count]),
                spread(ratios(rates[count], rates[1])),
                spread([load.percentile_ms(0.5) for load in found]),
            ]
            for count, found in loads.items()
        ],
    )
    report.data["cores"] = rates


def _batches(report: Report, settings: Mapping[str, str], images: Images, plan: Plan) -> None:
    rates: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    cpu: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    with Bound(settings, images.bodies) as bound:
        for _ in range(plan.rounds):
            for batch in BATCHES:
                run = bound.run(batch, plan.seconds, plan.warmup_s / 2)
                rates[batch].append(run.per_second)
                cpu[batch].append(run.cpu_ms)
    report.table(
        "Batch sizes, decode and inference without HTTP",
        ["batch", "images/s", "of batch 1", "CPU ms an image"],
        [[str(b), spread(rates[b]), spread(ratios(rates[b], rates[1])), spread(cpu[b])] for b in BATCHES],
    )
    report.data["batches"] = rates


def _sizes(report: Report, settings: Mapping[str, str], images: Images, plan: Plan) -> None:
    del images
    made = [made_images(width, height, 8) for width, height in SIZES]
    rates: list[list[float]] = [[] for _ in SIZES]
    cpu: list[list[float]] = [[] for _ in SIZES]
    with bento(settings) as server:
        for _ in range(plan.rounds):
            for number, sent in enumerate(made):
                with Client(sent.bodies) as client:
                    before = server.cpu_s()
                    load = client.closed(server.classify, BUSY_CLIENTS, plan.seconds, plan.warmup_s)
                    cpu[number].append(1000 * (server.cpu_s() - before) / max(1, load.requests))
                    rates[number].append(load.per_second)
    report.table(
        f"Image sizes through the service, {BUSY_CLIENTS} clients; made JPEGs",
        ["pixels", "KiB each", "images/s", "server CPU ms an image"],
        [
            [
                f"{width}x{height}",
                figure(median([len(body) for body in sent.bodies]) / 1024),
                spread(rates[number]),
                spread(cpu[number]),
            ]
            for number, ((width, height), sent) in enumerate(zip(SIZES, made, strict=True))
        ],
    )
    report.data["sizes"] = [[width * height, *rates[n]] for n, (width, height) in enumerate(SIZES)]


def copies(settings: Mapping[str, str], count: int, folder: Path) -> dict[str, str]:
    """Settings that serve ``count`` copies of the model from a store in ``folder``, under names of their own."""
    stored = chosen_models(Settings.from_env(settings))[0]
    store = ModelStore(folder)
    for number in range(count):
        manifest = stored.manifest.model_copy(update={"name": f"copy{number}", "version": "1"})
        with store.staging() as staged:
            for file in manifest.files:
                shutil.copy2(stored.path(file), staged / file.file)
            store.publish(staged, manifest)
    names = ",".join(f"copy{number}" for number in range(count))
    return {**settings, variable("model_store"): str(folder), variable("models"): names}


def _models(report: Report, settings: Mapping[str, str], images: Images, plan: Plan) -> None:
    """Each count in a service of its own, one after the other: eight at once would not fit."""
    rates: dict[int, list[float]] = {count: [] for count in MODELS}
    memory, start = {}, {}
    with tempfile.TemporaryDirectory() as folder, Client(images.bodies) as client:
        for count in MODELS:
            store = Path(folder) / str(count)
            with bento(copies(settings, count, store)) as server:
                start[count] = server.start_s
                url = f"{server.classify}?model=copy{count - 1}"
                for _ in range(plan.rounds):
                    for number in range(count):
                        client.closed(f"{server.classify}?model=copy{number}", 1, plan.seconds / 4, 0.0)
                    rates[count].append(client.closed(url, BUSY_CLIENTS, plan.seconds, plan.warmup_s).per_second)
                memory[count] = server.worker_bytes() / 2**20
            shutil.rmtree(store)
    report.table(
        f"Models in one service, {BUSY_CLIENTS} clients at one of them, after all were asked",
        ["models", "images/s", "worker MiB", "start to ready s"],
        [[str(n), spread(rates[n]), figure(memory[n]), figure(start[n])] for n in MODELS],
    )
    report.data["models"] = {"rates": rates, "memory_mib": memory, "start_s": start}


PARTS: Final = {"cores": _cores, "batches": _batches, "sizes": _sizes, "models": _models}


def main() -> None:
    parser = common_options("scaling", __doc__, seconds=3.0)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    add_model_options(parser)
    options, parts = parse_with_parts(parser, PARTS)
    plan = Plan.smoke() if options.smoke else Plan(options.seconds, options.rounds)
    settings = settings_of(options)
    images = load_images(options.images)
    report = Report("scaling", options.smoke)
    manifest = chosen_models(Settings.from_env(settings))[0].manifest
    report.subject = {
        "model": f"{manifest.name} version {manifest.version}",
        "images": images.origin,
        "settings": " ".join(f"{name}={value}" for name, value in settings.items()) or "defaults",
        "rounds": f"{plan.rounds} of {plan.seconds:g} s each",
    }
    for part in parts:
        PARTS[part](report, settings, images, plan)
    report.finish(options.json)


if __name__ == "__main__":
    main()
