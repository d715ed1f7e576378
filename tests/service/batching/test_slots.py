from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.slots import Slots, Turn


@pytest.fixture
def slots() -> Iterator[Slots]:
    slots = Slots(1)
    yield slots
    slots.close()


class Model:
    """Has work without end: takes a slot whenever one is offered."""

    def __init__(self, slots: Slots) -> None:
        self.turn: Turn = slots.join(self.ask)
        self.computing = 0

    def ask(self) -> None:
        self.computing += self.turn.take()

    def end(self, busy_s: float) -> None:
        self.computing -= 1
        self.turn.give_back(busy_s, more=True)


def test_a_slot_is_taken_once(slots: Slots) -> None:
    one, two = Model(slots), Model(slots)
    one.ask()
    two.ask()
    assert (one.computing, two.computing, slots.free) == (1, 0, 0)


def test_a_model_asks_once_however_often_it_tries(slots: Slots) -> None:
    one, two = Model(slots), Model(slots)
    one.ask()
    for _ in range(3):
        two.ask()
    one.computing = 0
    one.turn.give_back(0.0, more=False)
    assert (two.computing, slots.free) == (1, 0)


def test_idleness_is_not_paid_for(slots: Slots) -> None:
    """A model that comes late shares from then on; it does not get all it never asked for."""
    early, late = Model(slots), Model(slots)
    early.ask()
    for _ in range(100):
        early.end(1.0)
    late.ask()
    got = [0, 0]
    for _ in range(20):
        running = 0 if early.computing else 1
        got[running] += 1
        (early, late)[running].end(1.0)
    assert abs(got[0] - got[1]) <= 2


@given(st.integers(1, 4), st.lists(st.floats(0.1, 5.0), min_size=2, max_size=4))
def test_models_that_always_have_work_get_equal_time(count: int, batch_s: list[float]) -> None:
    slots = Slots(count)
    models = [Model(slots) for _ in batch_s]
    for model in models:
        for _ in range(count):
            model.ask()
    used = [0.0] * len(models)
    for step in range(2000):
        running = [n for n, model in enumerate(models) if model.computing]
        assert sum(model.computing for model in models) == count, "a slot idles"
        which = running[step % len(running)]
        used[which] += batch_s[which]
        models[which].end(batch_s[which])
    if count == 1:
        assert max(used) - min(used) <= 2 * max(batch_s)
    slots.close()


FOREVER_S = 3600.0
"""A rest of so long is not survived by a test: only what must end it can."""


def rested(slots: Slots, monkeypatch: pytest.MonkeyPatch, times: int = 1, rest_s: float = FOREVER_S) -> list[float]:
    """The bounds of the rests that the event loop takes where they are asked for ``times`` times in one turn."""
    rests: list[float] = []
    wait = slots._ended.wait
    monkeypatch.setattr("service.batching.slots.REST_S", rest_s)
    monkeypatch.setattr(slots._ended, "wait", lambda seconds: (rests.append(seconds), wait(seconds)))

    async def turn() -> None:
        for _ in range(times):
            slots.rest_soon()
        await asyncio.sleep(0)

    asyncio.run(turn())
    return rests


def test_a_rest_ends_when_a_call_does(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    slots.free = 0
    future = slots.submit(lambda: None)
    future.add_done_callback(slots.ended)
    assert rested(slots, monkeypatch, times=3) == [FOREVER_S]  # one for all that asked
    assert rested(slots, monkeypatch) == [FOREVER_S]  # over at once while that call's slot is not given back


def test_there_is_no_rest_while_a_slot_is_free(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rested(slots, monkeypatch) == []
    slots.free = 0
    slots.ended(slots.submit(lambda: None))
    slots.give_back()
    assert not slots._ended.is_set()  # that call ends no later rest
    assert rested(slots, monkeypatch) == []


def test_a_rest_is_over_where_no_call_ends(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    slots.free = 0
    for _ in range(2):
        assert rested(slots, monkeypatch, rest_s=0.001) == [0.001]
