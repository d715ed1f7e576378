from __future__ import annotations

import asyncio

from service.client.command.pace import Pace


def test_no_more_than_there_are_places() -> None:
    async def run() -> None:
        pace = Pace(2)
        await pace.enter()
        await pace.enter()
        third = asyncio.create_task(pace.enter())
        await asyncio.sleep(0)
        assert not third.done()
        pace.leave()
        await third

    asyncio.run(run())


def test_refusals_take_places_and_answers_bring_them_back() -> None:
    async def run() -> None:
        pace = Pace(3)
        for wanted in (2, 1, 1):
            pace.refused()
            assert pace.places == wanted
        await pace.enter()
        second = asyncio.create_task(pace.enter())
        for _ in range(63):
            pace.answered()
        await asyncio.sleep(0)
        assert not second.done()
        pace.answered()
        await second
        assert pace.places == 2
        for _ in range(1000):
            pace.answered()
        assert pace.places == 3

    asyncio.run(run())


def test_a_refusal_starts_the_count_anew() -> None:
    pace = Pace(8)
    pace.refused()
    for _ in range(10):
        for _ in range(63):
            pace.answered()
        pace.refused()
    assert pace.places == 1
