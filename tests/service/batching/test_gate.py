from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.gate import Gate, Ticket
from service.errors import Overloaded


def test_a_request_takes_no_room_before_its_images_are_known() -> None:
    gate = Gate(3)
    with gate.admit() as slow, gate.admit(), gate.admit(), gate.admit() as ticket:
        assert gate.images == 0
        ticket.extend(3)
        assert gate.images == 3
        with pytest.raises(Overloaded), gate.admit():
            pytest.fail("let in")
        with pytest.raises(Overloaded):
            slow.extend(1)
        assert gate.images == 3
    assert gate.images == 0


def test_what_is_refused_takes_no_room() -> None:
    gate = Gate(3)
    with gate.admit() as one, gate.admit() as other:
        one.extend(1)
        other.extend(1)
        with pytest.raises(Overloaded):
            one.extend(3)
        assert gate.images == 2
        one.extend(2)
        assert gate.images == 3
    assert gate.images == 0


def test_fewer_images_than_taken_change_nothing() -> None:
    gate = Gate(2)
    with gate.admit() as ticket:
        for images in (1, 0, 1):
            ticket.extend(images)
            assert gate.images == 1


def test_room_is_given_back_whatever_happens() -> None:
    gate = Gate(1, 10)
    for error in (ValueError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), gate.admit() as ticket:  # noqa: PT012
            ticket.extend(1)
            ticket.hold(10)
            raise error
        assert (gate.images, gate.bytes) == (0, 0)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def answer(gate: Gate, clock: Clock, images: int, seconds: float) -> None:
    """One request comes as the last of ``images``, and all are answered ``seconds`` later."""
    with ExitStack() as stack:
        for _ in range(images):
            stack.enter_context(gate.admit()).extend(1)
        clock.now_s += seconds


def fail(gate: Gate, clock: Clock, images: int, seconds: float) -> None:
    with ExitStack() as stack:
        for _ in range(images):
            stack.enter_context(gate.admit()).extend(1)
        clock.now_s += seconds
        raise ValueError("gone")


def test_who_would_wait_too_long_is_refused() -> None:
    clock = Clock()
    gate = Gate(100, patience_s=5.0, clock=clock)
    answer(gate, clock, 20, 2.0)  # an image leaves every tenth of a second, as far as the last to come can tell
    with ExitStack() as stack:
        while not gate.full:
            stack.enter_context(gate.admit()).extend(1)
        assert 20 < gate.images < 100
        with pytest.raises(Overloaded):
            stack.enter_context(gate.admit()).extend(1)
    answer(gate, clock, 50, 0.05)
    answer(gate, clock, 50, 0.05)  # faster now, and the more is let in
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(gate.admit()).extend(1)
        assert gate.full


def test_few_images_are_always_let_in() -> None:
    clock = Clock()
    gate = Gate(100, patience_s=5.0, clock=clock)
    answer(gate, clock, 8, 500.0)
    with ExitStack() as stack:
        for _ in range(8):
            assert not gate.full
            stack.enter_context(gate.admit()).extend(1)
        assert gate.full


def test_what_fails_tells_nothing_of_the_time() -> None:
    clock = Clock()
    gate = Gate(100, patience_s=5.0, clock=clock)
    with pytest.raises(ValueError, match="gone"):
        fail(gate, clock, 20, 500.0)
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(gate.admit()).extend(1)


def test_bytes_are_counted_as_they_come() -> None:
    gate = Gate(10, 100)
    with gate.admit() as slow, gate.admit() as other:
        slow.expect(100)  # would fit, and takes nothing before it is here
        other.hold(60)
        slow.hold(40)
        assert gate.bytes == 100
        for refused in (slow.hold, slow.expect, other.hold):
            with pytest.raises(Overloaded, match="bytes"):
                refused(1)
        assert gate.bytes == 100
        slow.expect(0)
    assert gate.bytes == 0


@given(
    limit=st.integers(1, 10),
    steps=st.lists(st.tuples(st.sampled_from(["in", "out", "more", "bytes"]), st.integers(0, 8))),
)
def test_the_limits_hold_in_any_order(limit: int, steps: list[tuple[str, int]]) -> None:
    gate = Gate(limit, limit)
    inside: list[tuple[ExitStack, Ticket]] = []
    for step, number in steps:
        ticket = inside[number % len(inside)][1] if inside else None
        if step == "in":
            stack = ExitStack()
            try:
                inside.append((stack, stack.enter_context(gate.admit())))
            except Overloaded:
                assert gate.images == limit
        elif ticket is None:
            continue
        elif step == "out":
            inside.pop(number % len(inside))[0].close()
        elif step == "more":
            before = gate.images
            try:
                ticket.extend(number)
            except Overloaded:
                assert before - ticket.images + number > limit
                assert gate.images == before
        else:
            before = gate.bytes
            try:
                ticket.hold(number)
            except Overloaded:
                assert gate.bytes == before > limit - number
        assert gate.images == sum(ticket.images for _, ticket in inside) <= limit
        assert gate.bytes == sum(ticket.bytes for _, ticket in inside) <= limit
    for stack, _ in inside:
        stack.close()
    assert (gate.images, gate.bytes) == (0, 0)
