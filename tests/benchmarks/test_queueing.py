"""The simulation against what queueing theory says of the cases that it has formulas for."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.queueing import Replica, bearable, simulate

IMAGES = 60_000


@pytest.mark.parametrize("busy", [0.3, 0.7, 0.9])
def test_one_slot_with_constant_times_is_the_queue_m_d_1(busy: float) -> None:
    seen = simulate(Replica(1, 1, 1, {1: [0.010]}, 0.0), busy / 0.010, IMAGES)
    waits_s = busy * 0.010 / (2 * (1 - busy))  # Pollaczek and Khinchine
    assert statistics.fmean(seen.latencies_s) == pytest.approx(0.010 + waits_s, rel=0.05)
    assert seen.busy == pytest.approx(busy, rel=0.02)


def test_workers_that_share_nothing_are_queues_of_their_own() -> None:
    times = {1: [0.010]}
    together = simulate(Replica(2, 1, 1, times, 0.0), 140, IMAGES)
    alone = simulate(Replica(1, 1, 1, times, 0.0), 70, IMAGES)
    assert statistics.fmean(together.latencies_s) == pytest.approx(statistics.fmean(alone.latencies_s), rel=0.05)
    shared = simulate(Replica(1, 2, 1, times, 0.0), 140, IMAGES)
    assert shared.percentile_s(0.99) < alone.percentile_s(0.99)


def test_batches_carry_what_single_images_could_not() -> None:
    times = {size: [0.010 + 0.002 * size] for size in range(1, 9)}
    replica = Replica(1, 1, 8, times, 0.0)
    assert replica.most == pytest.approx(8 / 0.026)
    seen = simulate(replica, 200, IMAGES)  # one by one 83 a second
    assert seen.percentile_s(0.99) < 0.1
    assert seen.busy < 1


def test_the_overhead_is_paid_for_each_image() -> None:
    replica = Replica(1, 2, 1, {1: [0.004]}, 0.001)
    assert replica.most == pytest.approx(400)
    assert simulate(replica, 1, 100).latencies_s[0] == pytest.approx(0.005)


def test_what_a_replica_bears_grows_with_what_is_allowed() -> None:
    replica = Replica(1, 2, 1, {1: [0.004, 0.006]}, 0.0)
    loads = [bearable(replica, p99_s, 5000) for p99_s in (0.005, 0.02, 0.05, 0.2)]
    assert loads == sorted(loads)
    assert loads[0] == 0  # some images take longer all alone
    assert 0.85 * replica.most < loads[-1] < replica.most
