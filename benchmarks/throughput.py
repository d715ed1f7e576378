"""The service beside its bound, in rounds: closed loop, steady and overloading Poisson traffic, and how much it bears.

Rounds alternate everything, as the speed of a shared machine drifts; ratios are taken inside a round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks.bisection import highest_passing
from benchmarks.bound import Bound, BoundRun
from benchmarks.load import Client
from benchmarks.report import Report, Target, median, ratios, spread
from benchmarks.server import Server
from benchmarks.traffic import Load, percentile_ms

STEADY_SHARE: Final = 0.7
OVERLOAD: Final = 5.0
BEARABLE: Final = 5.0  # p99 in service times: the p50 of one client alone
_OPEN_HEAD: Final = (
    "traffic", "offered/s", "answered/s", "p50 ms", "p99 ms",
    "failed", "refused", "refusals' p99 ms", "sent late, p99 ms",
)  # fmt: skip
BUSY_CLIENTS: Final = 16  # at which the bound and the CPU time are compared


@dataclass(frozen=True)
class Plan:
    """What is run, and for how long."""

    seconds: float = 5.0
    rounds: int = 3
    warmup_s: float = 1.0
    clients: Sequence[int] = (1, 2, 8, BUSY_CLIENTS, 32)
    batches: Sequence[int] = (1, 4, 8)
    bisections: int = 5

    @classmethod
    def smoke(cls) -> Plan:
        return cls(seconds=0.4, rounds=1, warmup_s=0.1, clients=(1, BUSY_CLIENTS), batches=(1,), bisections=2)


@dataclass
class Rounds:
    """What the rounds gave, in order."""

    bound: dict[int, list[BoundRun]]
    closed: dict[int, list[Load]]
    steady: list[Load] = field(default_factory=list)
    overload: list[Load] = field(default_factory=list)
    bearable: list[float] = field(default_factory=list)
    server_cpu_ms: list[float] = field(default_factory=list)
    loop_cpu_ms: list[float] = field(default_factory=list)

    @property
    def best_batch(self) -> int:
        return max(self.bound, key=lambda batch: median([run.per_second for run in self.bound[batch]]))

    def rates(self, clients: int) -> list[float]:
        return [load.per_second for load in self.closed[clients]]

    @property
    def bounds(self) -> list[float]:
        return [run.per_second for run in self.bound[self.best_batch]]

    @property
    def bounds_cpu_ms(self) -> list[float]:
        return [run.cpu_ms for run in self.bound[self.best_batch]]

    @property
    def peaks(self) -> list[float]:
        """Each round's rate at the number of clients that is best over all rounds."""
        return self.rates(max(self.closed, key=lambda clients: median(self.rates(clients))))


def measure(server: Server, bound: Bound, client: Client, plan: Plan) -> Rounds:
    """Everything of ``plan``, each in its turn, round after round.

    The bound's largest batches are next to the clients they are compared with. The order turns round, as speed drifts.
    """
    found = Rounds({batch: [] for batch in plan.batches}, {clients: [] for clients in plan.clients})
    url = server.classify

    def run_bound(batch: int) -> None:
        found.bound[batch].append(bound.run(batch, plan.seconds, plan.warmup_s / 2))

    def run_closed(clients: int) -> None:
        all_s, loops_s = server.cpu_s(), server.loops_cpu_s()
        load = client.closed(url, clients, plan.seconds, plan.warmup_s)
        if clients == BUSY_CLIENTS:
            requests = max(1, load.requests)
            found.server_cpu_ms.append(1000 * (server.cpu_s() - all_s) / requests)
            found.loop_cpu_ms.append(1000 * (server.loops_cpu_s() - loops_s) / requests)
        found.closed[clients].append(load)

    turns: list[tuple[Callable[[int], None], int]] = [
        *((run_closed, clients) for clients in plan.clients if clients < BUSY_CLIENTS),
        *((run_bound, batch) for batch in plan.batches),
        *((run_closed, clients) for clients in plan.clients if clients >= BUSY_CLIENTS),
    ]
    for number in range(plan.rounds):
        for run, size in reversed(turns) if number % 2 else turns:
            run(size)
        peak = found.peaks[-1]
        service_ms = found.closed[1][-1].percentile_ms(0.5)
        found.steady.append(client.open(url, STEADY_SHARE * peak, plan.seconds, plan.warmup_s))
        found.overload.append(client.open(url, OVERLOAD * peak, plan.seconds, plan.warmup_s))

        def bears(rate: float, limit_ms: float = BEARABLE * service_ms) -> bool:
            load = client.open(url, rate, plan.seconds, plan.warmup_s)
            return not load.failed and not load.refused and load.percentile_ms(0.99) <= limit_ms

        found.bearable.append(highest_passing(bears, 0.5 * peak, peak, plan.bisections))
    return found


def add_tables(report: Report, found: Rounds) -> None:
    """The rounds, as tables of ``report``, and their raw figures."""
    bounds = found.bounds
    rows = [
        [
            f"bound, batches of {batch}",
            spread([run.per_second for run in runs]),
            spread(ratios([run.per_second for run in runs], bounds)),
            "-",
            "-",
            "-",
            spread([run.cpu_ms for run in runs]),
        ]
        for batch, runs in found.bound.items()
    ]
    rows += [
        [
            f"{clients} client{'s' if clients > 1 else ''}",
            spread(found.rates(clients)),
            spread(ratios(found.rates(clients), bounds)),
            *_latencies(loads),
            spread(found.server_cpu_ms) if clients == BUSY_CLIENTS else "-",
        ]
        for clients, loads in found.closed.items()
    ]
    report.table(
        "Closed loop beside the bound (decode and inference without HTTP): medians, least to most",
        ["what", "images/s", "of the bound", "p50 ms", "p99 ms", "failed", "CPU ms an image"],
        rows,
    )
    report.table(
        "Open loop (Poisson), latency from when an image was due",
        _OPEN_HEAD,
        [
            _open_row(f"{100 * STEADY_SHARE:g} % of the peak", found.steady),
            _open_row(f"{OVERLOAD:g} times the peak", found.overload),
        ],
    )  # fmt: skip
    busy = [load.client_cpu_ms for load in found.closed[BUSY_CLIENTS]]
    report.notes.append(
        f"The client, on the same cores, took {spread(busy)} ms of CPU a request with {BUSY_CLIENTS} clients, "
        f"{spread([load.client_cpu_ms for load in found.overload])} ms in overload."
    )
    beyond = [server - bound for server, bound in zip(found.server_cpu_ms, found.bounds_cpu_ms, strict=True)]
    report.notes.append(
        f"An image cost the service {spread(beyond)} ms of CPU more than the bound with its best batch: "
        f"{spread(found.loop_cpu_ms)} ms of the event loop, and what smaller batches and shared caches add to the rest."
    )
    report.notes.append(
        f"Most Poisson traffic with p99 within {BEARABLE:g} service times: {spread(found.bearable)} images/s."
    )
    report.data["rounds"] = _raw(found)


def _latencies(loads: Sequence[Load]) -> list[str]:
    return [
        spread([load.percentile_ms(0.5) for load in loads]),
        spread([load.percentile_ms(0.99) for load in loads]),
        str(sum(load.failed + load.refused for load in loads)),
    ]


def _open_row(name: str, loads: Sequence[Load]) -> list[str]:
    refusals = [percentile_ms(load.refusals_s, 0.99) for load in loads if load.refusals_s]
    return [
        name,
        spread([load.offered for load in loads]),
        spread([load.per_second for load in loads]),
        spread([load.percentile_ms(0.5) for load in loads]),
        spread([load.percentile_ms(0.99) for load in loads]),
        str(sum(load.failed for load in loads)),
        str(sum(load.refused for load in loads)),
        spread(refusals),
        spread([percentile_ms(load.send_lags_s, 0.99) for load in loads]),
    ]


def targets(found: Rounds) -> list[Target]:
    """What the rounds are held against."""
    peaks = found.peaks
    waits = ratios([x.percentile_ms(0.99) for x in found.steady], [x.percentile_ms(0.5) for x in found.closed[1]])
    refusals = [percentile_ms(load.refusals_s, 0.99) for load in found.overload if load.refusals_s]
    other = sum(load.failed for load in found.overload)
    share = median(ratios(found.rates(BUSY_CLIENTS), found.bounds))
    return [
        Target(f"of the bound at {BUSY_CLIENTS} clients", share, 0.96, True),
        Target("p99 at 70 % of the peak over the p50 of one client", median(waits), 4, False),
        Target(
            "goodput at 5 times the peak, of the peak",
            median(ratios([load.per_second for load in found.overload], peaks)),
            0.95,
            True,
        ),
        Target("p99 of refusals at 5 times the peak", median(refusals), 50, False, "ms"),
        Target("neither answered nor refused at 5 times the peak", float(other), 0, False),
        Target(
            "Poisson traffic with p99 within 5 service times, of the peak",
            median(ratios(found.bearable, peaks)),
            0.75,
            True,
        ),
        Target(
            "CPU a request beyond decode and inference: the event loop", median(found.loop_cpu_ms), 0.5, False, "ms"
        ),
    ]


def _raw(found: Rounds) -> dict[str, Any]:
    """All figures of all rounds; latencies as percentiles."""
    return {
        "bound": {batch: [asdict(run) for run in runs] for batch, runs in found.bound.items()},
        "closed": {clients: [summary(load) for load in loads] for clients, loads in found.closed.items()},
        "steady": [summary(load) for load in found.steady],
        "overload": [summary(load) for load in found.overload],
        "bearable": found.bearable,
        "server_cpu_ms": found.server_cpu_ms,
        "loop_cpu_ms": found.loop_cpu_ms,
    }


def summary(load: Load) -> dict[str, Any]:
    """``load`` as numbers for JSON."""
    shares = (0.5, 0.9, 0.99, 1.0)
    return {
        "per_second": load.per_second,
        "offered": load.offered,
        "statuses": load.statuses,
        "latency_ms": {f"p{100 * share:g}": load.percentile_ms(share) for share in shares},
        "refusal_ms": {f"p{100 * share:g}": percentile_ms(load.refusals_s, share) for share in shares},
        "client_cpu_ms": load.client_cpu_ms,
    }
