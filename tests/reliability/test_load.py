"""Short runs of the programs for load, memory and soak: what does not depend on the machine's speed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.images import made_images
from benchmarks.report import Report
from benchmarks.server import Server
from tests.reliability import bad_neighbours, leavers, memory, overload, soak
from tests.reliability.harness import broken, describe, serving

pytestmark = pytest.mark.reliability

GENEROUS = 2.0
"""Times the growth that the programs allow, as a short run sees more of what comes and goes."""


def test_overload_is_refused_and_told_when_to_come_back() -> None:
    report, factors = Report("reliability.overload", smoke=True), (1.0, 5.0)
    with serving() as server:
        describe(report, server)
        once, flood = overload.measure(server, made_images(320, 240, 8), factors, 1.0, rounds=1, warm_up_s=0.5)
    overload.fill(report, factors, [once, flood])
    report.finish(None)
    (flooded,) = flood
    assert flooded.load.refused
    assert set(flooded.load.statuses) == {200, 429}
    for name in ("refusals without Retry-After", "neither answered nor refused", "admitted p99", "back to normal"):
        assert name not in broken(report)


def test_overload_beyond_the_deadline_is_refused_not_computed_for_nothing() -> None:
    """The queue's length would let in far more than can be answered in time."""
    with serving(RESNET_MAX_QUEUE="100000", RESNET_DEADLINE_S="2", RESNET_SLOTS="1") as server:
        load = overload.flood(server, made_images(640, 480, 8), factor=5.0, seconds=3.0)
    print(f"{load.good} answered, {load.refused} refused, {load.failed} failed; {load.statuses}")
    assert load.refused > load.failed
    assert load.good > load.failed


def test_bad_images_do_not_touch_their_neighbours() -> None:
    report = Report("reliability.bad_neighbours", smoke=True)
    with serving(**bad_neighbours.SETTINGS) as server:
        describe(report, server)
        found = bad_neighbours.measure(server, rounds=24)
    bad_neighbours.fill(report, found)
    report.finish(None)
    assert broken(report) == []
    assert found.answers == 24 * 7


def test_work_for_clients_that_left_is_dropped_and_counted() -> None:
    report = Report("reliability.leavers", smoke=True)
    leavers.fill(report, leavers.measure({}, lambda server: describe(report, server)))
    report.finish(None)
    assert broken(report) == []


@pytest.fixture(scope="module")
def long_lived() -> Iterator[Server]:
    """One service for the tests that look at what stays of much traffic."""
    with serving(**memory.SETTINGS) as server:
        yield server


def test_memory_is_bounded(long_lived: Server) -> None:
    report = Report("reliability.memory", smoke=True)
    describe(report, long_lived)
    growth = memory.measure(long_lived, requests=2000, warm_up=1500, refused=300)
    memory.fill(report, growth)
    report.finish(None)
    assert growth.seen.requests >= 2000
    assert growth.unexpected == {}
    assert growth.grown_mib <= GENEROUS * memory.GROWTH_MIB


def test_a_short_soak_leaves_nothing_behind(long_lived: Server) -> None:
    report = Report("reliability.soak", smoke=True)
    describe(report, long_lived)
    soaked = soak.measure(long_lived, seconds=10, warm_up_s=2)
    soak.fill(report, soaked)
    report.finish(None)
    assert soaked.seen.left
    assert [name for name in broken(report) if name not in ("growth", "clients killed mid-request")] == []
    assert soaked.after.resident_mib - soaked.before.resident_mib <= GENEROUS * memory.GROWTH_MIB


def test_a_leak_is_found() -> None:
    """As the service above, with a leak."""
    with serving(service=memory.LEAKING, **memory.SETTINGS) as server:
        growth = memory.measure(server, requests=1700, warm_up=300, refused=100)
    print(f"the leaking control grew by {growth.grown_mib:.1f} MiB")
    assert growth.grown_mib > GENEROUS * memory.GROWTH_MIB
