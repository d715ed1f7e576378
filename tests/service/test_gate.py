from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Overloaded
from service.gate import Gate, Ticket


def test_a_request_is_one_image_until_more_are_known() -> None:
    gate = Gate(3)
    with gate.admit() as ticket:
        assert gate.images == 1
        ticket.extend(3)
        assert gate.images == 3
        with pytest.raises(Overloaded), gate.admit():
            pytest.fail("let in")
        assert gate.images == 3
    assert gate.images == 0


def test_what_is_refused_takes_no_room() -> None:
    gate = Gate(3)
    with gate.admit() as one, gate.admit():
        with pytest.raises(Overloaded):
            one.extend(3)
        assert gate.images == 2
        one.extend(2)
        assert gate.images == 3
    assert gate.images == 0


def test_fewer_images_than_taken_change_nothing() -> None:
    gate = Gate(2)
    with gate.admit() as ticket:
        for images in (0, 1, 1):
            ticket.extend(images)
            assert gate.images == 1


def test_room_is_given_back_whatever_happens() -> None:
    gate = Gate(1)
    for error in (ValueError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), gate.admit():
            raise error
        assert gate.images == 0


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def answer(gate: Gate, clock: Clock, images: int, seconds: float) -> None:
    """One request comes as the last of ``images``, and all are answered ``seconds`` later."""
    with ExitStack() as stack:
        for _ in range(images):
            stack.enter_context(gate.admit())
        clock.now_s += seconds


def fail(gate: Gate, clock: Clock, images: int, seconds: float) -> None:
    with ExitStack() as stack:
        for _ in range(images):
            stack.enter_context(gate.admit())
        clock.now_s += seconds
        raise ValueError("gone")


def test_who_would_wait_too_long_is_refused() -> None:
    clock = Clock()
    gate = Gate(100, patience_s=5.0, clock=clock)
    answer(gate, clock, 20, 2.0)  # an image leaves every tenth of a second, as far as the last to come can tell
    with ExitStack() as stack:
        while not gate.full:
            stack.enter_context(gate.admit())
        assert 20 < gate.images < 100
        with pytest.raises(Overloaded):
            stack.enter_context(gate.admit())
    answer(gate, clock, 50, 0.05)
    answer(gate, clock, 50, 0.05)  # faster now, and the more is let in
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(gate.admit())
        assert gate.full


def test_few_images_are_always_let_in() -> None:
    clock = Clock()
    gate = Gate(100, patience_s=5.0, clock=clock)
    answer(gate, clock, 8, 500.0)
    with ExitStack() as stack:
        for _ in range(8):
            assert not gate.full
            stack.enter_context(gate.admit())
        assert gate.full


def test_what_fails_tells_nothing_of_the_time() -> None:
    clock = Clock()
    gate = Gate(100, patience_s=5.0, clock=clock)
    with pytest.raises(ValueError, match="gone"):
        fail(gate, clock, 20, 500.0)
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(gate.admit())


@given(limit=st.integers(1, 10), steps=st.lists(st.tuples(st.sampled_from(["in", "out", "more"]), st.integers(0, 8))))
def test_the_limit_holds_in_any_order(limit: int, steps: list[tuple[str, int]]) -> None:
    gate = Gate(limit)
    inside: list[tuple[ExitStack, Ticket]] = []
    for step, number in steps:
        if step == "in":
            stack = ExitStack()
            try:
                inside.append((stack, stack.enter_context(gate.admit())))
            except Overloaded:
                assert gate.images == limit
        elif inside and step == "out":
            stack, _ = inside.pop(number % len(inside))
            stack.close()
        elif inside:
            _, ticket = inside[number % len(inside)]
            before = gate.images
            try:
                ticket.extend(number)
            except Overloaded:
                assert before - ticket.images + number > limit
                assert gate.images == before
        assert gate.images == sum(ticket.images for _, ticket in inside) <= limit
    for stack, _ in inside:
        stack.close()
    assert gate.images == 0
