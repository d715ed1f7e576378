"""The highest passing rate, with services that are functions."""

from __future__ import annotations

import pytest

from benchmarks.bisection import highest_passing


@pytest.mark.parametrize("edge", [53.0, 63.0, 75.0, 99.0])
def test_it_comes_within_its_resolution_of_the_edge(edge: float) -> None:
    tried: list[float] = []

    def passes(rate: float) -> bool:
        tried.append(rate)
        return rate <= edge

    found = highest_passing(passes, 50, 100, 6)
    assert len(tried) == 6
    assert found == max((rate for rate in tried if rate <= edge), default=0)
    assert edge - found <= 50 / 2**5


def test_the_highest_is_tried_first() -> None:
    tried: list[float] = []
    assert highest_passing(lambda rate: tried.append(rate) or True, 50, 100, 6) == 100  # type: ignore[func-returns-value]
    assert tried == [100]


def test_nothing_passes() -> None:
    assert highest_passing(lambda rate: False, 50, 100, 4) == 0
