from __future__ import annotations

import itertools

from service.batching.company import Company


def company(*found: bool) -> Company:
    made = Company()
    for others in found:
        made.came(others)
    return made


def test_images_that_come_one_at_a_time_have_none() -> None:
    assert company().rare
    assert company(*[False] * 1000).rare


def test_now_and_then_is_rare() -> None:
    assert company(*[False] * 20, True).rare
    assert company(*itertools.islice(itertools.cycle([True, *[False] * 9]), 1000)).rare


def test_traffic_that_meets_itself_is_not() -> None:
    assert not company(*itertools.islice(itertools.cycle([True, False]), 1000)).rare
    assert not company(*[True] * 3).rare


def test_a_burst_is_forgotten() -> None:
    made = company(*[True] * 1000)
    came = 0
    while not made.rare:
        made.came(others=False)
        came += 1
    assert came < 20
