"""Whatever fails, every caller hears of it and the slot is free again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from typing import Any

import pytest

from service.batching.slots import Slots
from service.errors import BadRequest, InferenceFailed, ServiceError
from tests.service.batching.conftest import FAR, ManualSlots, Observer, batching, identity, run, start
from tests.service.conftest import turns


def test_a_failure_reaches_every_caller_of_its_batch_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        slots = ManualSlots(1)

        def fail_on_negative(batch: list[int]) -> list[int]:
            if min(batch) < 0:
                raise RuntimeError("/secret/path")
            return batch

        batcher = batching(fail_on_negative, slots, 2, Observer())
        tasks = [start(batcher, payload) for payload in (0, -1, 2, 3, 4)]
        await turns()
        while slots.pending:
            slots.finish()
            await turns()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == 0
        assert [type(result) for result in results[1:3]] == [InferenceFailed, InferenceFailed]
        assert "secret" not in str(results[1])
        assert results[3:] == [3, 4]
        assert slots.free == 1
        slots.close()

    run(test)
    assert "/secret/path" in caplog.text  # in full for the operator


def test_an_error_for_the_client_passes_as_it_is() -> None:
    async def test() -> None:
        slots = Slots(1)

        def refuse(batch: list[int]) -> list[int]:
            raise BadRequest("not this one")

        batcher = batching(refuse, slots, 2, Observer())
        with pytest.raises(BadRequest, match="not this one"):
            await batcher.submit(1, FAR)
        assert slots.free == 1
        slots.close()

    run(test)


@pytest.mark.parametrize("answer", [[], [1, 2, 3], None, 7])
def test_a_wrong_number_of_results_fails_the_batch(answer: Any) -> None:
    async def test() -> None:
        slots = Slots(1)
        batcher = batching(lambda _: answer, slots, 2, Observer())
        with pytest.raises(InferenceFailed):
            await batcher.submit(1, FAR)
        assert slots.free == 1
        slots.close()

    run(test)


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(3), asyncio.CancelledError()])
def test_whatever_run_raises_settles_the_callers_and_frees_the_slot(error: BaseException) -> None:
    async def test() -> None:
        slots = ManualSlots(1)
        batcher = batching(identity, slots, 2, Observer())
        task = start(batcher, 1)
        await turns()
        slots.finish(outcome=error)
        await turns()
        assert task.done(), "the caller was never told"
        assert isinstance(task.exception(), InferenceFailed)
        assert slots.free == 1
        slots.close()

    run(test)


def test_a_slot_that_cannot_start_its_thread_settles_the_batch() -> None:
    """Threads start lazily; where the system refuses one, the callers must hear of it."""

    class Broken(ManualSlots):
        def submit(self, call: Callable[[], Any]) -> ThreadFuture[Any]:
            raise RuntimeError("can't start new thread")

    async def test() -> None:
        slots = Broken(1)
        slots.free = 0
        batcher = batching(identity, slots, 4, Observer())
        tasks = [start(batcher, i) for i in range(3)]
        await turns()
        try:
            slots.give_back()
        except RuntimeError:
            pytest.fail("the error goes to whoever gave the slot back, not to the callers")
        await turns()
        done = [task.done() for task in tasks]
        for task in tasks:
            task.cancel()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(done), "callers hang"
        assert all(isinstance(error, ServiceError) for error in errors)
        assert slots.free == 1
        slots.close()

    run(test)


def test_the_first_failure_of_several_drops_the_rest() -> None:
    async def test() -> None:
        slots = ManualSlots(1)
        batcher = batching(identity, slots, 1, Observer())
        task = asyncio.create_task(batcher.submit_all([1, 2, 3], FAR))
        await turns()
        slots.finish(outcome=ValueError("broken"))
        with pytest.raises(InferenceFailed):
            await task
        await turns()
        assert len(slots.pending) == 1  # the second had begun; the third never does
        slots.finish()
        await batcher.close()
        assert not slots.pending
        slots.close()

    run(test)


def test_an_observer_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Observer):
        def queued(self, images: int, oldest_s: float | None) -> None:
            raise OSError("no space left")

        def dispatched(self, waited_s: Sequence[float]) -> None:
            raise OSError("no space left")

    async def test() -> None:
        slots = Slots(1)
        batcher = batching(identity, slots, 4, Broken())
        assert await asyncio.gather(*(start(batcher, i) for i in range(9))) == list(range(9))
        await batcher.close()
        assert slots.free == 1
        slots.close()

    run(test)
    assert "no space left" in caplog.text
