"""The service as a process: its start, its memory, how it uses cores, what an empty route would give."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from benchmarks.bound import Bound, BoundRun
from benchmarks.load import Client
from benchmarks.server import bento
from benchmarks.throughput import BUSY_CLIENTS, Plan
from benchmarks.traffic import Load
from service.config import variable

EMPTY_SERVICE: Final = "benchmarks.empty_service:EmptyService"


def start_seconds(settings: Mapping[str, str], times: int) -> tuple[list[float], list[float]]:
    """Seconds from starting the service to its first ready answer, without a model cache and with a full one."""
    plain: list[float] = []
    cached: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        caching = {**settings, variable("cache_dir"): folder}
        with bento(caching):
            pass  # fills it
        for _ in range(times):
            for chosen, found in ((settings, plain), (caching, cached)):
                with bento(chosen) as server:
                    found.append(server.start_s)
    return plain, cached


@dataclass(frozen=True)
class Cores:
    """Closed-loop runs, by how many cores the service and the client were kept to, together; and the bound's."""

    loads: dict[int, list[Load]]
    bounds: dict[int, list[BoundRun]]


def over_cores(
    settings: Mapping[str, str], bodies: list[bytes], counts: Sequence[int], plan: Plan, *, bound: bool = False
) -> Cores:
    """The same service on each number of cores, in turn; the client is kept to the same cores.

    With ``bound``, the bound with the plan's largest batches takes its turn beside each.
    """
    allowed = sorted(os.sched_getaffinity(0))
    loads: dict[int, list[Load]] = {count: [] for count in counts}
    runs: dict[int, list[BoundRun]] = {count: [] for count in counts}
    with ExitStack() as stack:
        servers = {count: stack.enter_context(bento(settings, allowed[:count])) for count in counts}
        clients = {count: stack.enter_context(Client(bodies, allowed[:count])) for count in counts}
        bounds = {count: stack.enter_context(Bound(settings, bodies, allowed[:count])) for count in counts if bound}
        for _ in range(plan.rounds):
            for count in counts:
                url = servers[count].classify
                loads[count].append(clients[count].closed(url, BUSY_CLIENTS, plan.seconds, plan.warmup_s))
                if bound:
                    runs[count].append(bounds[count].run(max(plan.batches), plan.seconds, plan.warmup_s / 2))
    return Cores(loads, runs)


def beside_empty_route(settings: Mapping[str, str], bodies: list[bytes], plan: Plan) -> tuple[list[Load], list[Load]]:
    """The service, and the same kind of service with an empty route, in turns."""
    ours: list[Load] = []
    empty: list[Load] = []
    with (
        bento(settings) as server,
        bento({}, service=EMPTY_SERVICE) as nothing,
        Client(bodies) as client,
    ):
        for _ in range(plan.rounds):
            for url, loads in ((server.classify, ours), (nothing.classify, empty)):
                loads.append(client.closed(url, BUSY_CLIENTS, plan.seconds, plan.warmup_s))
    return ours, empty
