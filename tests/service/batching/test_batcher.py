from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.batcher import Batcher
from service.batching.forming import Forming
from service.batching.slots import Slots
from service.errors import BadRequest, DeadlineExceeded, InferenceFailed, ServiceError, ShuttingDown
from tests.service.conftest import Hold, turns

FAR = math.inf


class Observer:
    def __init__(self) -> None:
        self.queue = 0
        self.waits: list[list[float]] = []

    def queued(self, images: int, oldest_s: float | None) -> None:
        assert (oldest_s is None) == (images == 0)
        self.queue = images

    def dispatched(self, waited_s: Sequence[float]) -> None:
        self.waits.append(list(waited_s))


class ManualSlots(Slots):
    """Slots that compute at once, but are busy until the test says with which outcome they end."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.pending: list[tuple[Any, ThreadFuture[Any]]] = []

    def submit(self, call: Callable[[], Any]) -> ThreadFuture[Any]:
        future: ThreadFuture[Any] = ThreadFuture()
        try:
            result = call()
        except Exception as error:  # noqa: BLE001
            result = error
        self.pending.append((result, future))
        return future

    def finish(self, index: int = 0, outcome: Any = None) -> None:
        """End the work at ``index`` of those pending with its result, or with ``outcome``."""
        result, future = self.pending.pop(index)
        result = result if outcome is None else outcome
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def identity(batch: list[Any]) -> list[Any]:
    return list(batch)


def batching(run: Callable[[list[Any]], Any], slots: Slots, max_batch: int, observer: Observer) -> Batcher[Any, Any]:
    return Batcher(lambda batch, _: run(batch), slots, Forming(max_batch), observer)


def start(batcher: Batcher[Any, Any], payload: Any, deadline: float = FAR) -> asyncio.Task[Any]:
    return asyncio.create_task(batcher.submit(payload, deadline))


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


# Every order of events must leave every caller settled, once, and all slots free.

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
