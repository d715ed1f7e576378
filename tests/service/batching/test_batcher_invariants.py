"""Every order of events must leave every caller settled, once, and all slots free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.batching.slots import Slots
from service.errors import BadRequest, DeadlineExceeded, InferenceFailed
from tests.service.batching.conftest import ManualSlots, Observer, batching, identity, run, start
from tests.service.conftest import turns

_MODELS = 3
_OUTCOMES = [None, None, None, ValueError("broken"), BadRequest("broken"), []]
_EVENTS = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, _MODELS - 1), st.sampled_from([5.0, 20.0, 1e6])),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
    st.tuples(st.just("finish"), st.integers(0, 5), st.sampled_from(_OUTCOMES)),
    st.tuples(st.just("advance"), st.sampled_from([1.0, 6.0, 30.0])),
    st.tuples(st.just("turn")),
)


@dataclass
class World:
    """Some models over the same slots, under a clock of the test's, and what they are seen to do."""

    slots: ManualSlots
    max_batch: int
    clock: float = 0.0
    batches: list[list[list[int]]] = field(default_factory=lambda: [[] for _ in range(_MODELS)])
    tasks: dict[int, asyncio.Task[int]] = field(default_factory=dict)
    deadlines: dict[int, float] = field(default_factory=dict)
    cancelled_in_queue: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        real = loop.time
        loop.time = lambda: real() + self.clock  # type: ignore[method-assign]
        self.loop = loop
        self.observers = [Observer() for _ in range(_MODELS)]
        self.batchers = [
            batching(self.runner(model), self.slots, self.max_batch, self.observers[model]) for model in range(_MODELS)
        ]
        self.of_model: dict[int, int] = {}

    def runner(self, model: int) -> Callable[[list[int]], list[int]]:
        def run_batch(batch: list[int]) -> list[int]:
            self.batches[model].append(list(batch))
            return [-x for x in batch]

        return run_batch

    @property
    def dispatched(self) -> set[int]:
        return {x for batches in self.batches for batch in batches for x in batch}

    async def act(self, event: tuple[Any, ...]) -> None:
        match event:
            case ("submit", model, life):
                number = len(self.tasks) + 1
                self.deadlines[number] = self.loop.time() + life
                self.of_model[number] = model
                self.tasks[number] = start(self.batchers[model], number, self.deadlines[number])
                await turns(1)
            case ("cancel", which) if self.tasks:
                number = which % len(self.tasks) + 1
                if not self.tasks[number].done() and number not in self.dispatched:
                    self.cancelled_in_queue.add(number)
                self.tasks[number].cancel()
            case ("finish", which, outcome) if self.slots.pending:
                self.slots.finish(which % len(self.slots.pending), outcome)
            case ("advance", seconds):
                self.clock += seconds
            case ("turn",):
                await turns()
        assert 0 <= self.slots.free <= self.slots.count
        assert len(self.slots.pending) <= self.slots.count

    def check_no_slot_idles(self) -> None:
        if self.slots.free:
            waiting = {n for n, task in self.tasks.items() if not task.done() and n not in self.dispatched}
            assert not waiting, f"a slot is free, yet {waiting} wait"

    async def drain(self) -> None:
        closing = asyncio.gather(*(batcher.close() for batcher in self.batchers))
        await turns()
        for _ in range(10_000):
            if closing.done():
                break
            if self.slots.pending:
                self.slots.finish()
            await turns(6)
        assert closing.done(), "close never came to an end"
        await closing
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@given(count=st.integers(1, 3), max_batch=st.integers(1, 4), events=st.lists(_EVENTS, max_size=60))
def test_any_order_of_events_settles_everything_once(count: int, max_batch: int, events: list[tuple[Any, ...]]) -> None:
    async def test() -> None:
        world = World(ManualSlots(count), max_batch)
        for event in events:
            await world.act(event)
            if event[0] == "turn":
                world.check_no_slot_idles()
        await world.drain()

        assert all(task.done() for task in world.tasks.values()), "a caller was never told"
        computed = [x for batches in world.batches for batch in batches for x in batch]
        assert len(computed) == len(set(computed)), "an image was computed twice"
        assert not world.cancelled_in_queue & set(computed), "a cancelled image was computed"
        for number, task in world.tasks.items():
            if task.cancelled():
                continue
            match task.exception():
                case None:
                    assert task.result() == -number
                    assert number in computed
                case DeadlineExceeded():
                    assert number not in computed
                    assert world.deadlines[number] <= world.loop.time()
                case error:
                    assert isinstance(error, (InferenceFailed, BadRequest))
                    assert number in computed
        for model, batches in enumerate(world.batches):
            assert all(1 <= len(batch) <= max_batch for batch in batches)
            assert all(batch == sorted(batch) for batch in batches)
            assert all(world.of_model[x] == model for batch in batches for x in batch)
        assert world.slots.free == count
        assert all(observer.queue == 0 for observer in world.observers)
        world.slots.close()

    run(test)


@given(events=st.lists(_EVENTS, max_size=60), max_batch=st.integers(1, 4))
def test_one_slot_serves_each_model_in_order(events: list[tuple[Any, ...]], max_batch: int) -> None:
    async def test() -> None:
        world = World(ManualSlots(1), max_batch)
        for event in events:
            await world.act(event)
        await world.drain()
        for batches in world.batches:
            order = [x for batch in batches for x in batch]
            assert order == sorted(order)
        world.slots.close()

    run(test)


@given(
    count=st.integers(1, 3),
    images=st.integers(1, 60),
    max_batch=st.integers(1, 8),
    cancelled=st.sets(st.integers(0, 59), max_size=10),
)
def test_real_threads_settle_everything(count: int, images: int, max_batch: int, cancelled: set[int]) -> None:
    async def test() -> None:
        slots = Slots(count)
        batchers = [batching(identity, slots, max_batch, Observer()) for _ in range(2)]
        tasks = [start(batchers[i % 2], i) for i in range(images)]
        await turns(1)
        for i in cancelled:
            if i < images:
                tasks[i].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for i, result in enumerate(results):
            assert result == i or (i in cancelled and isinstance(result, asyncio.CancelledError))
        await asyncio.gather(*(batcher.close() for batcher in batchers))
        assert slots.free == count
        slots.close()

    run(test)
