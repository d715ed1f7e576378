"""Images whose deadline has passed or whose caller has left are not computed."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from service.batching.slots import Slots
from service.errors import DeadlineExceeded
from tests.service.batching.conftest import ManualSlots, Observer, batching, identity, run, start
from tests.service.conftest import Hold, turns


def test_the_expired_are_refused_and_never_computed() -> None:
    async def test() -> None:
        now = asyncio.get_running_loop().time()
        hold = Hold(identity)
        slots = Slots(1)
        batcher = batching(hold, slots, 4, Observer())
        first = start(batcher, "first")
        await hold.wait_entered()
        late, last = start(batcher, "late", now - 1), start(batcher, "last")
        await turns()
        hold.released.set()
        assert await asyncio.gather(first, last) == ["first", "last"]
        with pytest.raises(DeadlineExceeded):
            await late
        assert hold.batches == [["first"], ["last"]]
        slots.close()

    run(test)


def test_the_cancelled_are_never_computed() -> None:
    async def test() -> None:
        hold = Hold(identity)
        slots = Slots(1)
        batcher = batching(hold, slots, 4, Observer())
        tasks = [start(batcher, 0)]
        await hold.wait_entered()
        tasks += [start(batcher, i) for i in range(1, 5)]
        await turns()
        tasks[2].cancel()
        tasks[4].cancel()
        await turns()
        hold.released.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:2] + results[3:4] == [0, 1, 3]
        assert all(isinstance(results[i], asyncio.CancelledError) for i in (2, 4))
        assert hold.batches == [[0], [1, 3]]
        slots.close()

    run(test)


def test_cancelling_takes_the_payload_out_of_the_queue() -> None:
    """Not only out of the next batch: with a stalled model, clients that come and go must not fill the memory."""

    class Payload:
        pass

    async def test() -> None:
        slots = ManualSlots(1)
        observer = Observer()
        batcher = batching(identity, slots, 4, observer)
        first = start(batcher, Payload())
        await turns()
        payload = Payload()
        gone = weakref.ref(payload)
        task = start(batcher, payload)
        del payload
        await turns()
        assert observer.queue == 1
        task.cancel()
        await turns()
        del task
        gc.collect()
        queue, held = observer.queue, gone() is not None
        slots.finish()
        await first
        slots.close()
        assert queue == 0, "the cancelled image is still counted as waiting"
        assert not held, "the cancelled image is still held"

    run(test)


def test_cancelling_a_running_image_lets_its_neighbours_finish() -> None:
    async def test() -> None:
        slots = ManualSlots(1)
        batcher = batching(identity, slots, 4, Observer())
        slots.free = 0
        one, two = start(batcher, 1), start(batcher, 2)
        await turns()
        slots.give_back()
        one.cancel()
        await turns()
        slots.finish()
        assert await two == 2
        assert one.cancelled()
        assert slots.free == 1
        slots.close()

    run(test)


def test_a_model_with_only_cancelled_work_passes_its_slot_on() -> None:
    async def test() -> None:
        slots = ManualSlots(1)
        one, two = (batching(identity, slots, 1, Observer()) for _ in range(2))
        running, dead, alive = start(one, 0), start(one, 1), start(two, 2)
        await turns()
        dead.cancel()
        await turns()
        slots.finish()
        await turns()
        slots.finish()
        assert await asyncio.gather(running, alive) == [0, 2]
        await turns()
        assert slots.free == 1
        slots.close()

    run(test)
