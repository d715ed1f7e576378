"""Memory is bounded: what the service takes does not grow with the requests it had.

    python -m tests.reliability.memory
    python -m tests.reliability.memory --requests 3000
    python -m tests.reliability.memory --control

``--control`` starts a service that leaks, which must be found out: the status is then 0 where the bound was broken.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

import click

from benchmarks.report import Report, Target
from benchmarks.server import SERVICE, Server
from tests.reliability.harness import describe, none_of, program, serving
from tests.reliability.mixed import MAX_BODY_BYTES, Mix, Seen, send

GROWTH_MIB: Final = 20.0
PER_100_REFUSED_MIB: Final = 1.0
LEAKING: Final = "tests.reliability.leaking:ResNetService"
CONTROL_REQUESTS: Final = 5000
SETTINGS: Final = {"RESNET_MAX_BODY_BYTES": str(MAX_BODY_BYTES), "RESNET_LOG_REQUESTS": "off"}

_CLIENTS: Final = 12
_SLICE_S: Final = 2.0
_LEAVING_PER_S: Final = 20.0
_SETTLE_S: Final = 1.0


@dataclass
class Growth:
    """Resident memory, MiB, of all processes: after the warm-up, and after so many requests each."""

    warm_mib: float
    seen: Seen = field(default_factory=Seen)
    samples: list[tuple[int, float]] = field(default_factory=list)
    refused: int = 0
    refused_mib: float = 0.0
    unexpected: dict[int, int] = field(default_factory=dict)

    @property
    def grown_mib(self) -> float:
        return self.samples[-1][1] - self.warm_mib

    @property
    def per_100_refused_mib(self) -> float:
        return 100 * self.refused_mib / self.refused


def measure(server: Server, requests: int, warm_up: int, refused: int) -> Growth:
    """Send ``warm_up`` requests, then ``requests``, then ``refused`` that all get errors; look at memory between."""
    mix = Mix(server.url)
    _send(server, mix, warm_up)
    growth = Growth(_resident_mib(server))
    while growth.seen.requests < requests:
        growth.seen.add(_send(server, mix, min(max(requests // 20, 1000), requests - growth.seen.requests)))
        growth.samples.append((growth.seen.requests, _resident_mib(server)))
    before = _resident_mib(server)
    errors = _send(server, mix, refused, refused=True)
    growth.refused, growth.refused_mib = errors.requests, _resident_mib(server) - before
    growth.unexpected = {**growth.seen.unexpected, **errors.unexpected}
    return growth


def _send(server: Server, mix: Mix, count: int, *, refused: bool = False) -> Seen:
    """At least ``count`` requests."""
    seen = Seen()
    while seen.requests < count:
        prepared = mix.refused(300) if refused else mix.requests(600)
        leaving = 0.0 if refused else _LEAVING_PER_S
        seen.add(send(server.url, mix, prepared, _CLIENTS, _SLICE_S, leaving))
    return seen


def _resident_mib(server: Server) -> float:
    time.sleep(_SETTLE_S)  # connections of clients that left are closed, their requests are over
    return server.usage().resident_mib


def fill(report: Report, growth: Growth) -> None:
    """The figures and the promises."""
    rows = [["0, warm", f"{growth.warm_mib:.1f}", "0.0"]]
    step = max(1, len(growth.samples) // 10)
    shown = growth.samples[step - 1 :: step]
    rows += [[str(count), f"{mib:.1f}", f"{mib - growth.warm_mib:+.1f}"] for count, mib in shown]
    report.table("Resident memory of all processes", ["requests", "MiB", "since warm"], rows)
    statuses = sorted(growth.seen.statuses.items())
    report.table(
        "What they were",
        ["status", "requests"],
        [
            *[[str(status or "no answer"), str(count)] for status, count in statuses],
            ["clients that left", str(growth.seen.left)],
        ],
    )
    report.hold(
        [
            Target("growth after the warm-up", growth.grown_mib, GROWTH_MIB, at_least=False, unit="MiB"),
            Target(
                "growth a hundred refused requests",
                growth.per_100_refused_mib,
                PER_100_REFUSED_MIB,
                at_least=False,
                unit="MiB",
                note=f"of {growth.refused}",
            ),
            none_of("unexpected answers", sum(growth.unexpected.values())),
        ]
    )
    report.data = {"warm_mib": growth.warm_mib, "samples": growth.samples, "unexpected": growth.unexpected}


@program
@click.option("--requests", type=click.IntRange(1), default=100_000, show_default=True, help="Sent after the warm-up.")
@click.option("--warm-up", type=click.IntRange(1), default=5000, show_default=True, help="Requests sent before.")
@click.option("--refused", type=click.IntRange(100), default=3000, show_default=True, help="Refused ones at the end.")
@click.option("--control", is_flag=True, help=f"A service that leaks, {CONTROL_REQUESTS} requests at most.")
def main(settings: dict[str, str], requests: int, warm_up: int, refused: int, control: bool) -> Report:
    report = Report("reliability.memory")
    with serving(service=LEAKING if control else SERVICE, **{**SETTINGS, **settings}) as server:
        describe(report, server)
        growth = measure(server, min(requests, CONTROL_REQUESTS) if control else requests, warm_up, refused)
    fill(report, growth)
    if control:
        report.targets = []
        report.hold([Target("growth of the leaking control", growth.grown_mib, GROWTH_MIB, at_least=True, unit="MiB")])
    return report


if __name__ == "__main__":
    main()
