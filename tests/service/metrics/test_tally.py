from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from service.metrics.tally import Tallies

BOUNDS = (0.1, 1.0, 10.0)


@given(st.lists(st.one_of(st.floats(0, 20), st.sampled_from(BOUNDS), st.none())))
def test_a_tally_shows_what_the_histogram_itself_would(values: list[float | None]) -> None:
    """None stands for a flush in between."""
    pages = []
    for tallied in (True, False):
        registry = CollectorRegistry()
        histogram = Histogram("h", "some", ["a"], buckets=BOUNDS, registry=registry).labels("1")
        tallies = Tallies()
        tally = tallies.histogram(histogram)
        for value in values:
            if value is None:
                tallies.flush()
            elif tallied:
                tally.observe(value)
            else:
                histogram.observe(value)
        tallies.flush()
        lines = generate_latest(registry).decode().splitlines()
        pages.append([line for line in lines if "_created" not in line and "_sum" not in line])
        assert histogram._sum.get() == pytest.approx(sum(value for value in values if value is not None))
    assert pages[0] == pages[1]


def test_threads_lose_no_count() -> None:
    counter = Counter("c", "some", registry=CollectorRegistry())
    tallies = Tallies()
    tally = tallies.counter(counter)

    def count(_: int) -> None:
        for _ in range(2000):
            tally.inc()
        tallies.flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert counter._value.get() == 8000


def test_a_full_disk_under_one_keeps_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tallies = Tallies()
    bad, good = (Counter(name, "some", registry=CollectorRegistry()) for name in "ab")
    monkeypatch.setattr(bad, "inc", lambda amount: (_ for _ in ()).throw(OSError("no space left")))
    for counter in (bad, good):
        tallies.counter(counter).inc()
    with pytest.raises(OSError, match="no space left"):
        tallies.flush()
    assert good._value.get() == 1
