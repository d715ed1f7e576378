"""Overload costs the overloading client, not the service: goodput stays near the peak whatever arrives.

    python -m tests.reliability.overload
    python -m tests.reliability.overload --apart --set RESNET_MODEL_STORE=models --set RESNET_MODELS=resnet50

The peak is that of a closed loop, before and after, as the speed of a shared machine drifts. Between them images arrive
as a Poisson process, at multiples of it. A refusal's latency counts from when its image was due, so it holds the
client's own delays, too. Such a client takes cores from the service if it has the same ones, which is what an overload
costs on one machine; with --apart each has cores of its own, as where clients are elsewhere.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import click
import httpx

from benchmarks.images import Images, load_images
from benchmarks.load import Client
from benchmarks.report import Report, Target, figure, spread
from benchmarks.server import Server
from benchmarks.traffic import Load, percentile_ms
from tests.reliability.harness import describe, none_of, program, serving

GOODPUT: Final = {1.0: 0.95, 2.0: 0.95, 5.0: 0.90, 10.0: 0.80}
"""At least this share of the peak, by how many times the peak arrives."""

REFUSED_MS: Final = 50.0
BACK_S: Final = 10.0
DEADLINE_S: Final = 10.0  # RESNET_DEADLINE_S' default

_CLOSED_CLIENTS: Final = (16, 32)
_WARM_UP_S: Final = 2.0
_PROBE_EVERY_S: Final = 0.05
_IN_A_ROW: Final = 10
_NORMAL: Final = 3.0  # times the slowest of as many probes of an idle service


@dataclass(frozen=True)
class Step:
    """One multiple of the peak, once; CPU in cores, of the service and of the client.

    probed -- good answers a second that the probe had meanwhile, which are goodput, too.
    """

    peak: float
    load: Load
    probed: float
    service_cores: float
    client_cores: float
    back_s: float

    @property
    def good(self) -> float:
        """Good answers a second."""
        return self.load.per_second + self.probed

    @property
    def goodput(self) -> float:
        """Good answers of what was possible: the peak, or what arrived where chance made that less."""
        return self.good / min(self.peak, self.load.offered + self.probed)

    @property
    def refused_p99_ms(self) -> float:
        return percentile_ms(self.load.refusals_s, 0.99)


@dataclass
class Probe:
    """One small client that asks all the while: when each of its answers was there, its status and time."""

    url: str
    body: bytes
    answers: list[tuple[float, int, float]] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stopped.wait(_PROBE_EVERY_S):
                began_s = time.monotonic()
                status = client.post(self.url, content=self.body).status_code
                ended_s = time.monotonic()
                self.answers.append((ended_s, status, ended_s - began_s))

    def stop(self) -> None:
        self._stopped.set()

    def good_between(self, begin_s: float, end_s: float) -> int:
        return sum(status == 200 and begin_s <= there_s < end_s for there_s, status, _ in self.answers)

    def back_after(self, end_s: float, normal_s: float) -> float | None:
        """Seconds after ``end_s`` from which on answers were good and quick, many in a row; None where not yet."""
        later = [answer for answer in self.answers if answer[0] >= end_s]
        for first in range(len(later) - _IN_A_ROW + 1):
            row = later[first : first + _IN_A_ROW]
            if all(status == 200 and seconds <= normal_s for _, status, seconds in row):
                return row[0][0] - end_s
        return None


def measure(
    server: Server,
    images: Images,
    factors: Sequence[float],
    seconds: float,
    rounds: int,
    warm_up_s: float = _WARM_UP_S,
    client_cpus: Sequence[int] | None = None,
) -> list[list[Step]]:
    """Each factor's steps, round by round: the peak, every multiple of it, and the peak again."""
    found: list[list[Step]] = [[] for _ in factors]
    url = server.classify
    with Client(images.bodies, client_cpus) as client:
        normal_s = _normal_s(url, images.bodies[0])
        tried = {clients: client.closed(url, clients, seconds, warm_up_s).per_second for clients in _CLOSED_CLIENTS}
        best = max(tried, key=lambda clients: tried[clients])
        before = client.closed(url, best, seconds, warm_up_s).per_second
        for _ in range(rounds):
            for steps, factor in zip(found, factors, strict=True):
                probe = Probe(url, images.bodies[0])
                steps.append(_step(server, client, probe, before, factor, (warm_up_s, seconds), normal_s))
            after = client.closed(url, best, seconds, warm_up_s).per_second
            for steps in found:
                steps[-1] = replace(steps[-1], peak=(before + after) / 2)
            before = after
    return found


def flood(server: Server, images: Images, factor: float, seconds: float) -> Load:
    """What comes of ``factor`` times the peak, roughly."""
    with Client(images.bodies) as client:
        peak = client.closed(server.classify, _CLOSED_CLIENTS[0], 1.5, 1.0).per_second
        return client.open(server.classify, factor * peak, seconds, 1.0)


def halves() -> tuple[list[int], list[int]]:
    """The cores that this process may use: one half for the service, the other for its client."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise click.UsageError("--apart needs two cores")
    return cpus[: len(cpus) // 2], cpus[len(cpus) // 2 :]


def _normal_s(url: str, body: bytes) -> float:
    """The most that a lone client's answer may take to count as normal."""
    with httpx.Client(timeout=60) as client:
        times = [client.post(url, content=body).elapsed.total_seconds() for _ in range(3 * _IN_A_ROW)]
    return _NORMAL * max(times[_IN_A_ROW:])


def _step(
    server: Server,
    client: Client,
    probe: Probe,
    peak: float,
    factor: float,
    times_s: tuple[float, float],
    normal_s: float,
) -> Step:
    warm_up_s, seconds = times_s
    with ThreadPoolExecutor(1) as beside:
        probing = beside.submit(probe.run)
        try:
            before_s, began_s = server.cpu_s(), time.monotonic()
            load = client.open(server.classify, factor * peak, seconds, warm_up_s)
            took_s = time.monotonic() - began_s
            cores = (server.cpu_s() - before_s) / took_s
            end_s = began_s + warm_up_s + seconds
            back_s = None
            while back_s is None and time.monotonic() < end_s + 3 * BACK_S:
                time.sleep(_PROBE_EVERY_S)
                back_s = probe.back_after(end_s, normal_s)
        finally:
            probe.stop()
        probing.result()
    probed = probe.good_between(end_s - seconds, end_s) / seconds
    return Step(peak, load, probed, cores, load.client_cpu_s / took_s, 3 * BACK_S if back_s is None else back_s)


def fill(report: Report, factors: Sequence[float], found: list[list[Step]], deadline_s: float = DEADLINE_S) -> None:
    """The figures and the promises; of several rounds, medians."""
    report.subject["peak"] = f"{spread([step.peak for step in found[0]])} images/s"
    head = [
        "traffic", "offered/s", "good/s", "of peak", "p99 ms", "refused", "refused p99 ms", "failed",
        "sent late p99 ms", "back s", "cores: service", "client",
    ]  # fmt: skip
    rows = [[f"{factor:g}x", *_cells(steps)] for factor, steps in zip(factors, found, strict=True)]
    report.table("Open loop (Poisson): medians, least to most", head, rows)
    for factor, steps in zip(factors, found, strict=True):
        goodput = statistics.median(step.goodput for step in steps)
        report.hold([Target(f"{factor:g}x: goodput of peak", goodput, GOODPUT.get(factor, 0.8), at_least=True)])
    every = [step for steps in found for step in steps]
    refusing = [steps for steps in found if any(step.load.refused for step in steps)]
    refused_ms = [statistics.median(step.refused_p99_ms for step in steps if step.load.refused) for steps in refusing]
    admitted_s = max(step.load.percentile_ms(0.99) for step in every) / 1000
    report.hold(
        [
            Target(
                "refusals' p99, the worst step's", max(refused_ms, default=0.0), REFUSED_MS, at_least=False, unit="ms"
            ),
            none_of("refusals without Retry-After", sum(s.load.refused_untold for s in every)),
            Target("admitted p99", admitted_s, deadline_s, at_least=False, unit="s", note="the deadline is the limit"),
            none_of("neither answered nor refused", sum(s.load.failed for s in every)),
            Target("back to normal", max(step.back_s for step in every), BACK_S, at_least=False, unit="s"),
        ]
    )
    report.data = {
        f"{factor:g}": [
            {"peak": s.peak, "good_per_s": s.good, "statuses": s.load.statuses, "back_s": s.back_s} for s in steps
        ]
        for factor, steps in zip(factors, found, strict=True)
    }


def _cells(steps: list[Step]) -> list[str]:
    return [
        spread([step.load.offered for step in steps]),
        spread([step.good for step in steps]),
        spread([step.goodput for step in steps]),
        spread([step.load.percentile_ms(0.99) for step in steps]),
        str(sum(step.load.refused for step in steps)),
        spread([step.refused_p99_ms for step in steps]),
        str(sum(step.load.failed for step in steps)),
        spread([percentile_ms(step.load.send_lags_s, 0.99) for step in steps]),
        spread([step.back_s for step in steps]),
        figure(statistics.median(step.service_cores for step in steps)),
        figure(statistics.median(step.client_cores for step in steps)),
    ]


@program
@click.option("--seconds", type=click.FloatRange(0.2), default=8.0, show_default=True, help="Of each step.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--factor", "factors", type=click.FloatRange(0, min_open=True), multiple=True, default=tuple(GOODPUT),
    show_default=True, help="How many times the peak arrives; any number of times.",
)  # fmt: skip
@click.option("--images", type=click.Path(path_type=Path, exists=True), help="Folder or zip; else photos or made ones.")
@click.option("--apart", is_flag=True, help="Give the service one half of the cores, the client the other.")
def main(
    settings: dict[str, str], seconds: float, rounds: int, factors: tuple[float, ...], images: Path | None, apart: bool
) -> Report:
    report, sent = Report("reliability.overload"), load_images(images)
    report.subject["images"] = sent.origin
    service_cpus, client_cpus = halves() if apart else (None, None)
    with serving(cpus=service_cpus, **settings) as server:
        describe(report, server)
        report.subject["cores"] = f"{len(service_cpus)} of its own" if service_cpus else "shared with the client"
        found = measure(server, sent, factors, seconds, rounds, client_cpus=client_cpus)
    fill(report, factors, found, float(settings.get("RESNET_DEADLINE_S", DEADLINE_S)))
    return report


if __name__ == "__main__":
    main()
