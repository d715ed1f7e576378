"""A holder's limits: what is let in, what is refused, and whether Retry-After is true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.holder import Holder
from service.access.keys import Limits
from service.errors import KeyBusy, KeyRate, TooManyImages


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def a_holder(workers: int = 1, **limits: float) -> tuple[Holder, Clock]:
    clock = Clock()
    return Holder("app", Limits(**limits), workers, clock), clock  # type: ignore[arg-type]


def send(holder: Holder, images: int = 1) -> None:
    """A whole request, as the gate takes it: one image first, the others when they are known."""
    held = 0
    try:
        for more in (1, images - 1):
            if more:
                holder.take(more, held)
                held += more
    finally:
        holder.give_back(held)


def test_without_limits_anything_goes() -> None:
    holder, _ = a_holder()
    for _ in range(1000):
        send(holder, 64)
    assert holder.images == 0


def test_a_burst_then_the_rate() -> None:
    holder, clock = a_holder(images_per_s=2, burst=3)
    for _ in range(3):
        send(holder)
    with pytest.raises(KeyRate) as raised:
        send(holder)
    assert raised.value.retry_after_s == 1
    clock.now_s += 0.5
    send(holder)
    clock.now_s += 1000
    send(holder, 3)
    with pytest.raises(KeyRate):
        send(holder)


def test_by_default_a_burst_is_a_second() -> None:
    holder, _ = a_holder(images_per_s=5)
    send(holder, 5)
    with pytest.raises(KeyRate):
        send(holder)
    slow, _ = a_holder(images_per_s=0.1)
    send(slow)
    with pytest.raises(KeyRate) as raised:
        send(slow)
    assert raised.value.retry_after_s == 10


def test_more_images_than_the_burst_are_let_in_and_paid_for() -> None:
    holder, clock = a_holder(images_per_s=10, burst=5)
    send(holder, 25)
    with pytest.raises(KeyRate) as raised:
        send(holder)
    assert raised.value.retry_after_s == 3  # 20 are owed, and one is wanted
    clock.now_s += 2.2
    send(holder)


@given(
    rate=st.sampled_from([0.3, 1, 7, 50]),
    burst=st.integers(1, 20),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_retry_after_is_true(rate: float, burst: int, sizes: list[int]) -> None:
    """Who waits as long as it says is let in; in all never more than the burst, the rate and one request let in."""
    holder, clock = a_holder(images_per_s=rate, burst=burst)
    began_s, sent = clock.now_s, 0
    for size in sizes:
        try:
            send(holder, size)
        except KeyRate as error:
            clock.now_s += error.retry_after_s or 0
            send(holder, size)
        sent += size
        assert sent <= max(burst, 1) + rate * (clock.now_s - began_s) + max(sizes) + 1e-6


def test_images_in_work() -> None:
    holder, _ = a_holder(concurrency=3)
    holder.take(1, 0)
    holder.take(1, 1)
    with pytest.raises(KeyBusy) as raised:
        send(holder, 2)
    assert raised.value.retry_after_s == 1
    assert holder.images == 2
    send(holder)
    with pytest.raises(TooManyImages):
        send(holder, 4)  # which would not fit at any time
    holder.give_back(2)
    send(holder, 3)
    assert holder.images == 0


def test_each_worker_has_its_share() -> None:
    holder, _ = a_holder(workers=4, images_per_s=8, burst=8, concurrency=6)
    send(holder, 2)
    with pytest.raises(KeyRate):
        send(holder)
    others, _ = a_holder(workers=4, concurrency=6)
    send(others, 2)
    with pytest.raises(TooManyImages):
        send(others, 3)
    few, _ = a_holder(workers=8, images_per_s=1, concurrency=1)
    send(few)  # a share is never less than one image


def test_other_limits_hold_at_once_and_what_was_used_stays() -> None:
    holder, clock = a_holder(images_per_s=100, burst=10)
    send(holder, 10)
    holder.allow(Limits(images_per_s=1, burst=10))
    with pytest.raises(KeyRate):
        send(holder)
    clock.now_s += 1
    send(holder)
    holder.allow(Limits())
    send(holder, 1000)
    holder.allow(Limits(images_per_s=1, burst=2))
    send(holder, 2)
    with pytest.raises(KeyRate):
        send(holder)
