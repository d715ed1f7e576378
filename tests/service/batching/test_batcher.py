from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from service.batching.batcher import Batcher
from service.batching.forming import Forming
from service.batching.slots import Slots
from service.errors import ShuttingDown
from tests.service.batching.conftest import FAR, ManualSlots, Observer, batching, identity, run, start
from tests.service.conftest import Hold, turns


def test_a_result_belongs_to_its_payload() -> None:
    async def test() -> None:
        slots = Slots(2)
        batcher = batching(lambda batch: [x * 10 for x in batch], slots, 4, Observer())
        assert await asyncio.gather(*(start(batcher, i) for i in range(30))) == [i * 10 for i in range(30)]
        await batcher.close()
        assert slots.free == 2
        slots.close()

    run(test)


def test_an_idle_slot_does_not_wait_for_company() -> None:
    async def test() -> None:
        hold = Hold(identity)
        slots = Slots(1)
        batcher = batching(hold, slots, 8, Observer())
        task = start(batcher, "alone")
        await hold.wait_entered()
        assert hold.batches == [["alone"]]
        hold.released.set()
        assert await task == "alone"
        slots.close()

    run(test)


def test_work_gathers_while_the_slot_is_busy() -> None:
    async def test() -> None:
        hold = Hold(identity)
        slots = Slots(1)
        batcher = batching(hold, slots, 4, Observer())
        tasks = [start(batcher, 0)]
        await hold.wait_entered()
        tasks += [start(batcher, i) for i in range(1, 8)]
        await turns()
        hold.released.set()
        await asyncio.gather(*tasks)
        assert hold.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]  # one slot: nothing else can run meanwhile
        slots.close()

    run(test)


def test_the_queue_is_shared_between_free_slots() -> None:
    async def test() -> None:
        slots = ManualSlots(2)
        seen: list[list[int]] = []
        batcher = batching(lambda batch: (seen.append(batch), batch)[1], slots, 8, Observer())
        tasks = [start(batcher, i) for i in range(2)]
        await turns()
        assert len(slots.pending) == 2  # both slots work on one image each
        tasks += [start(batcher, i) for i in range(2, 8)]
        await turns()
        slots.finish()
        slots.finish()
        await turns()
        while slots.pending:
            slots.finish()
            await turns()
        assert await asyncio.gather(*tasks) == list(range(8))
        slots.close()

    run(test)


def test_only_an_image_without_company_is_alone() -> None:
    async def test() -> None:
        slots = ManualSlots(2)
        seen: list[tuple[list[int], bool]] = []
        batcher = Batcher(lambda batch, alone: (seen.append((batch, alone)), batch)[1], slots, Forming(8), Observer())
        first = start(batcher, 0)
        await turns()
        second = start(batcher, 1)
        await turns()
        slots.finish()
        slots.finish()
        await asyncio.gather(first, second)
        both = asyncio.create_task(batcher.submit_all([2, 3], FAR))
        await turns()
        slots.finish()
        slots.finish()
        assert await both == [2, 3]
        last = start(batcher, 4)
        await turns()
        slots.finish()
        await last
        assert seen == [([0], True), ([1], False), ([2], False), ([3], False), ([4], True)]
        slots.close()

    run(test)


def test_where_images_meet_often_none_is_alone() -> None:
    """The next one would come while all cores compute this one."""

    async def test() -> None:
        slots = ManualSlots(2)
        seen: list[bool] = []
        batcher = Batcher(lambda batch, alone: (seen.append(alone), batch)[1], slots, Forming(8), Observer())
        for _ in range(10):
            pair = [start(batcher, 0), start(batcher, 1)]
            await turns()
            slots.finish()
            slots.finish()
            await asyncio.gather(*pair)
        seen.clear()
        for _ in range(20):
            one = start(batcher, 2)
            await turns()
            slots.finish()
            await one
        assert not seen[0]
        assert seen[-1]
        slots.close()

    run(test)


def test_images_submitted_together_are_shared_by_the_slots() -> None:
    async def test() -> None:
        slots = ManualSlots(2)
        seen: list[list[int]] = []
        batcher = batching(lambda batch: (seen.append(batch), batch)[1], slots, 8, Observer())
        task = asyncio.create_task(batcher.submit_all(list(range(64)), FAR))
        await turns()
        while slots.pending:
            slots.finish()
            await turns()
        assert await task == list(range(64))
        assert [len(batch) for batch in seen] == [8] * 8
        slots.close()

    run(test)


def test_models_share_a_slot_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model's long queue, or its long batches, do not keep another's images waiting to the end."""
    clock = [0.0]
    monkeypatch.setattr("service.batching.batcher.time.perf_counter", lambda: clock[0])

    async def test() -> None:
        slots = ManualSlots(1)
        order: list[str] = []

        def recording(name: str) -> Callable[[list[int]], list[int]]:
            return lambda batch: (order.append(name), batch)[1]

        slow = batching(recording("slow"), slots, 1, Observer())
        fast = batching(recording("fast"), slots, 1, Observer())
        tasks = [start(slow, i) for i in range(4)]
        await turns()
        tasks += [start(fast, i) for i in range(6)]
        await turns()
        while slots.pending:
            clock[0] += 3.0 if order[-1] == "slow" else 1.0
            slots.finish()
            await turns()
        await asyncio.gather(*tasks)
        assert order == ["slow", "fast", "fast", "fast", "slow", "fast", "fast", "fast", "slow", "slow"]
        slots.close()

    run(test)


def test_close_computes_what_is_queued_and_takes_nothing_more() -> None:
    async def test() -> None:
        slots = ManualSlots(1)
        observer = Observer()
        batcher = batching(identity, slots, 2, observer)
        tasks = [start(batcher, i) for i in range(5)]
        await turns()
        closing = asyncio.create_task(batcher.close())
        await turns()
        with pytest.raises(ShuttingDown):
            await batcher.submit(9, FAR)
        assert not closing.done()
        while slots.pending:
            slots.finish()
            await turns()
        await closing
        assert await asyncio.gather(*tasks) == list(range(5))
        assert observer.queue == 0
        await batcher.close()  # twice does no harm
        slots.close()

    run(test)


def test_close_of_an_unused_batcher_returns() -> None:
    async def test() -> None:
        slots = Slots(1)
        await batching(identity, slots, 2, Observer()).close()
        slots.close()

    run(test)


def test_run_is_called_off_the_event_loop() -> None:
    async def test() -> None:
        slots = Slots(1)
        batcher = batching(lambda batch: [threading.current_thread() for _ in batch], slots, 2, Observer())
        assert await batcher.submit(0, FAR) is not threading.current_thread()
        slots.close()

    run(test)


def test_the_observer_hears_of_every_image_that_is_dispatched() -> None:
    async def test() -> None:
        slots = ManualSlots(1)
        observer = Observer()
        batcher = batching(identity, slots, 3, observer)
        tasks = [start(batcher, i) for i in range(5)]
        await turns()
        assert observer.queue == 4
        while slots.pending:
            slots.finish()
            await turns()
        await asyncio.gather(*tasks)
        assert sum(map(len, observer.waits)) == 5
        assert min(min(waits) for waits in observer.waits if waits) >= 0
        assert observer.queue == 0
        slots.close()

    run(test)
