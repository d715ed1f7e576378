"""What the rounds come to, with made rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bound import BoundRun
from benchmarks.report import Report
from benchmarks.throughput import BUSY_CLIENTS, Plan, Rounds, add_tables, measure, targets
from benchmarks.traffic import Load


def load(good: int, latency_s: float, p99_s: float | None = None, refused_s: tuple[float, ...] = ()) -> Load:
    """A run of one second."""
    latencies = [latency_s] * 98 + [p99_s or latency_s] * 2
    statuses = {200: good} | ({429: len(refused_s)} if refused_s else {})
    return Load(1.0, good, statuses, latencies, sorted(refused_s), [], good, 0.1)


@pytest.fixture
def rounds() -> Rounds:
    """Two rounds; the machine was half as fast in the second."""
    return Rounds(
        bound={1: [BoundRun(80, 9.0), BoundRun(40, 18.0)], 8: [BoundRun(100, 8.0), BoundRun(50, 16.0)]},
        closed={
            1: [load(50, 0.01), load(25, 0.02)],
            BUSY_CLIENTS: [load(97, 0.1), load(48, 0.2)],
            32: [load(96, 0.2), load(47, 0.4)],
        },
        steady=[load(60, 0.012, 0.03), load(30, 0.024, 0.05)],
        overload=[load(95, 1.0, refused_s=(0.01, 0.02)), load(46, 1.0, refused_s=(0.03, 0.04))],
        bearable=[80.0, 30.0],
        server_cpu_ms=[8.4, 16.2],
        loop_cpu_ms=[0.2, 0.4],
    )


def test_targets_are_ratios_inside_a_round(rounds: Rounds) -> None:
    assert rounds.best_batch == 8
    assert rounds.peaks == [97, 48]
    found = {target.name: target for target in targets(rounds)}
    measured = [target.measured for target in found.values()]
    assert measured == [
        pytest.approx((0.97 + 0.96) / 2),  # of the bound
        pytest.approx((3.0 + 2.5) / 2),  # p99 over p50
        pytest.approx((95 / 97 + 46 / 48) / 2),  # goodput
        pytest.approx(30.0),  # refusals, ms
        0.0,  # neither answered nor refused
        pytest.approx((80 / 97 + 30 / 48) / 2),  # bearable
        pytest.approx((0.2 + 0.4) / 2),  # CPU of the event loop
    ]
    assert [target.met for target in found.values()] == [True, True, True, True, True, False, True]


def test_tables_have_every_row(rounds: Rounds, tmp_path: Path) -> None:
    report = Report("some", machine={})
    add_tables(report, rounds)
    closed, opened = report.tables
    assert [row[0] for row in closed["rows"]] == [
        "bound, batches of 1", "bound, batches of 8", "1 client", "16 clients", "32 clients",
    ]  # fmt: skip
    assert all(len(row) == len(table["head"]) for table in (closed, opened) for row in table["rows"])
    report.finish(tmp_path / "r.json")
    raw = json.loads((tmp_path / "r.json").read_text())["data"]["rounds"]
    assert raw["closed"]["16"][0]["per_second"] == 97
    assert raw["overload"][1]["refusal_ms"]["p99"] == pytest.approx(40)


class Recorder:
    """Server, bound and client, which note what is asked of them."""

    classify = "http://localhost/v1/classify"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def cpu_s(self) -> float:
        return 10.0

    def loops_cpu_s(self) -> float:
        return 1.0

    def run(self, batch: int, seconds: float, warmup_s: float) -> BoundRun:
        self.asked.append(f"bound {batch}")
        return BoundRun(100, 8.0)

    def closed(self, url: str, clients: int, seconds: float, warmup_s: float) -> Load:
        self.asked.append(f"{clients} clients")
        return load(90, 0.1)

    def open(self, url: str, rate: float, seconds: float, warmup_s: float) -> Load:
        return load(90, 0.1)


def test_the_order_turns_round_and_the_bound_stays_beside_its_clients() -> None:
    every: Any = Recorder()
    found = measure(every, every, every, Plan(rounds=2, clients=(1, BUSY_CLIENTS, 32), batches=(1, 8)))
    first = ["1 clients", "bound 1", "bound 8", "16 clients", "32 clients"]
    assert every.asked == [*first, *reversed(first)]
    assert [len(runs) for runs in (*found.bound.values(), *found.closed.values())] == [2] * 5
    assert (len(found.server_cpu_ms), len(found.loop_cpu_ms)) == (2, 2)
