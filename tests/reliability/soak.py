"""Soak: mixed traffic for long, with clients killed mid-request, leaves the service as it was.

python -m tests.reliability.soak
python -m tests.reliability.soak --hours 8
python -m tests.reliability.soak --minutes 0.3
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

import click

from benchmarks.report import Report, Target
from benchmarks.server import Server, Usage, total
from tests.reliability.harness import describe, none_of, program, serving
from tests.reliability.memory import GROWTH_MIB, SETTINGS
from tests.reliability.mixed import Mix, Seen, send

KILLED_SHARE: Final = 0.05
MORE_FILES: Final = 8
MORE_THREADS: Final = 4

_CLIENTS: Final = 12
_WARM_UP_S: Final = 10.0
_SLICE_S: Final = 5.0
_SHOWN: Final = 12
_IDLE_LIMIT_S: Final = 30.0


@dataclass
class Soaked:
    """What the traffic was and what the service took, before, meanwhile (seconds since the start) and after."""

    before: Usage
    after: Usage
    seen: Seen = field(default_factory=Seen)
    samples: list[tuple[float, Usage]] = field(default_factory=list)
    held: float = 0.0
    workers_replaced: int = 0

    @property
    def killed_share(self) -> float:
        return self.seen.left / max(1, self.seen.requests)

    @property
    def server_errors(self) -> dict[int, int]:
        """Answers of 5xx, of which this traffic should get none, and requests that got no answer (0)."""
        return {status: count for status, count in self.seen.statuses.items() if status >= 500 or status == 0}


def measure(server: Server, seconds: float, warm_up_s: float = _WARM_UP_S) -> Soaked:
    """Mixed traffic for ``seconds``; one client of twenty is killed."""
    mix = Mix(server.url)
    pids = {worker.pid for worker in server.workers()}
    first = _slice(server, mix, warm_up_s, 20.0)
    before = _idle(server)
    soaked = Soaked(before, before)
    began_s, rate = time.monotonic(), first.requests / warm_up_s
    while (left_s := seconds - (time.monotonic() - began_s)) > 0:
        slice_s = max(1.0, min(_SLICE_S, left_s))
        found = _slice(server, mix, slice_s, max(1.0, rate * KILLED_SHARE / (1 - KILLED_SHARE)))
        rate = found.statuses.total() / slice_s
        soaked.seen.add(found)
        soaked.samples.append((time.monotonic() - began_s, server.usage()))
    soaked.after = _idle(server)
    soaked.held = total(server.metrics(), "resnet_images_held")
    soaked.workers_replaced = len(pids - {worker.pid for worker in server.workers()})
    return soaked


def _slice(server: Server, mix: Mix, seconds: float, leaving_per_s: float) -> Seen:
    return send(server.url, mix, mix.requests(600), _CLIENTS, seconds, leaving_per_s)


def _idle(server: Server) -> Usage:
    """What it takes when no request is left; connections that keep alive are closed by then."""
    limit_s = time.monotonic() + _IDLE_LIMIT_S
    usage = server.usage()
    while time.monotonic() < limit_s:
        time.sleep(2.5)
        last, usage = usage, server.usage()
        if usage.open_files >= last.open_files and not total(server.metrics(), "resnet_images_held"):
            break
    return usage


def fill(report: Report, soaked: Soaked) -> None:
    """The figures and the promises."""
    head = ["when", "resident MiB", "open files", "threads"]
    step = max(1, len(soaked.samples) // _SHOWN)
    rows = [("before", soaked.before)]
    rows += [(f"{seconds / 60:.1f} min", usage) for seconds, usage in soaked.samples[step - 1 :: step]]
    rows.append(("after", soaked.after))
    cells = [[when, f"{use.resident_mib:.1f}", str(use.open_files), str(use.threads)] for when, use in rows]
    report.table("What all processes took", head, cells)
    statuses = [[str(status or "no answer"), str(count)] for status, count in sorted(soaked.seen.statuses.items())]
    report.table("What came of the requests", ["status", "requests"], [*statuses, ["killed", str(soaked.seen.left)]])
    before, after = soaked.before, soaked.after
    report.hold(
        [
            Target("clients killed mid-request", 100 * soaked.killed_share, 4, at_least=True, unit="%"),
            none_of("answers of 5xx, or none", sum(soaked.server_errors.values())),
            none_of("workers that were replaced", soaked.workers_replaced),
            none_of("images still held", soaked.held),
            Target("growth", after.resident_mib - before.resident_mib, GROWTH_MIB, at_least=False, unit="MiB"),
            Target("more open files", after.open_files - before.open_files, MORE_FILES, at_least=False),
            Target("more threads", after.threads - before.threads, MORE_THREADS, at_least=False),
        ]
    )
    report.data = {"statuses": dict(soaked.seen.statuses), "killed": soaked.seen.left}


@program
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True)
@click.option("--hours", type=click.FloatRange(0, min_open=True), help="Instead of --minutes.")
def main(settings: dict[str, str], minutes: float, hours: float | None) -> Report:
    report = Report("reliability.soak")
    with serving(**{**SETTINGS, **settings}) as server:
        describe(report, server)
        soaked = measure(server, 60 * minutes if hours is None else 3600 * hours)
    fill(report, soaked)
    return report


if __name__ == "__main__":
    main()
