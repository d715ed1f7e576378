"""The service beside its bound, decode and inference without HTTP, and against what it promises.

    python -m benchmarks.end_to_end
    python -m benchmarks.end_to_end --store models --model mine --precision int8 --json build/bench/mine.json

Parts (all by default, ``--parts load,cores`` for some):
    load   closed loop, Poisson traffic and overload, in rounds with the bound
    cores  two cores over one
    start  seconds from start to ready, with and without a model cache
    empty  the embedded model beside an empty route of the same kind of service
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final

from benchmarks.bound import Bound
from benchmarks.images import Images, load_images, made_images
from benchmarks.load import Client
from benchmarks.processes import beside_empty_route, over_cores, start_seconds
from benchmarks.report import Report, Target, common_options, median, parse_with_parts, ratios, spread
from benchmarks.server import Server, bento
from benchmarks.subject import add_model_options, settings_of
from benchmarks.throughput import BUSY_CLIENTS, Plan, add_tables, measure, summary, targets
from service.process.cpus import available_cpus

PARTS: Final = ("load", "cores", "start", "empty")


def _load(report: Report, settings: Mapping[str, str], images: Images, plan: Plan) -> None:
    with bento(settings) as server, Bound(settings, images.bodies) as bound, Client(images.bodies) as client:
        _name_subject(report, server)
        client.closed(server.classify, BUSY_CLIENTS, plan.seconds, plan.warmup_s)
        busy = server.worker_bytes() / 2**20
        found = measure(server, bound, client, plan)
        after = server.worker_bytes() / 2**20
    add_tables(report, found)
    report.notes.append(
        f"Resident memory of the worker with {BUSY_CLIENTS} clients: {busy:.0f} MiB. After all loads, images that come "
        f"alone and overload among them: {after:.0f} MiB."
    )
    report.data["worker_mib"] = {"busy": busy, "after": after}
    memory = Target(f"resident memory of a worker, {BUSY_CLIENTS} clients", busy, 450e6 / 2**20, False, "MiB")
    report.hold([*targets(found), memory])


def _name_subject(report: Report, server: Server) -> None:
    model = server.models()[0]
    report.subject["model"] = (
        f"{model['name']} version {model['version']} ({model['architecture']}), {model['provider']} "
        f"{model['precision']}, input {model['input']['height']}x{model['input']['width']}"
    )


def _cores(report: Report, settings: Mapping[str, str], images: Images, plan: Plan) -> None:
    if available_cpus() < 2:
        report.hold([Target("two cores over one", None, 1.9, True, note="this machine has one")])
        return
    found = over_cores(settings, images.bodies, (1, 2), plan, bound=True)
    loads = found.loads
    rates = {count: [load.per_second for load in runs] for count, runs in loads.items()}
    bounds = {count: [run.per_second for run in runs] for count, runs in found.bounds.items()}
    gains = ratios(rates[2], rates[1])
    report.table(
        f"Cores, {BUSY_CLIENTS} clients; the client is kept to the same cores",
        ["cores", "images/s", "over one core", "bound, images/s", "bound over one core", "client CPU ms a request"],
        [
            [
                str(count),
                spread(rates[count]),
                spread(ratios(rates[count], rates[1])),
                spread(bounds[count]),
                spread(ratios(bounds[count], bounds[1])),
                spread([load.client_cpu_ms for load in loads[count]]),
            ]
            for count in loads
        ],
    )
    report.data["cores"] = {count: [summary(load) for load in runs] for count, runs in loads.items()}
    report.data["cores_bound"] = bounds
    report.hold([Target("two cores over one", median(gains), 1.9, True)])


def _start(report: Report, settings: Mapping[str, str], images: Images, plan: Plan) -> None:
    del images
    plain, cached = start_seconds(settings, plan.rounds)
    rows = [["without a model cache", spread(plain)], ["with one (RESNET_CACHE_DIR)", spread(cached)]]
    report.table("Start to ready", ["what", "seconds"], rows)
    report.data["start_s"] = {"plain": plain, "cached": cached}
    report.hold([Target("start to ready with a model cache", median(cached), 4, False, "s")])


def _empty(report: Report, settings: Mapping[str, str], images: Images, plan: Plan) -> None:
    """With images of the model's own size, as decoding large ones is no part of the route; and with the others."""
    del settings
    rows, shares = [], {}
    small = made_images(32, 32)
    for sent in (small, images):
        ours, empty = beside_empty_route({}, sent.bodies, plan)
        rates = [[load.per_second for load in loads] for loads in (ours, empty)]
        shares[sent.origin] = ratios(*rates)
        rows.append([sent.origin, spread(rates[0]), spread(rates[1]), spread(shares[sent.origin])])
    report.table(
        f"The embedded model beside an empty route, {BUSY_CLIENTS} clients",
        ["sent", "embedded model, requests/s", "empty route, requests/s", "of the empty route"],
        rows,
    )
    report.data["empty"] = shares
    share = median(shares[small.origin])
    report.hold([Target("the embedded model, of an empty route, at its own image size", share, 0.8, True)])


def main() -> None:
    parser = common_options("end_to_end", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    add_model_options(parser)
    options, parts = parse_with_parts(parser, PARTS)
    plan = Plan.smoke() if options.smoke else Plan(options.seconds, options.rounds)
    settings = settings_of(options)
    images = load_images(options.images)
    report = Report("end_to_end", options.smoke)
    report.subject = {
        "images": images.origin,
        "settings": " ".join(f"{name}={value}" for name, value in settings.items()) or "defaults",
        "rounds": f"{plan.rounds} of {plan.seconds:g} s each",
    }
    run = {"load": _load, "cores": _cores, "start": _start, "empty": _empty}
    for part in parts:
        run[part](report, settings, images, plan)
    report.finish(options.json)


if __name__ == "__main__":
    main()
