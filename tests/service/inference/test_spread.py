from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from service.inference import spread as spread_module
from service.inference.spread import Spread
from service.providers.base import ProviderSession


class Opener:
    """Opens a session when it is let; ``failing`` it raises."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.let.set()
        self.failing = False
        self.opened: list[Any] = []

    def __call__(self) -> ProviderSession:
        assert self.let.wait(60)
        if self.failing:
            raise RuntimeError("no memory")
        self.opened.append(object())
        return self.opened[-1]  # type: ignore[no-any-return]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def spread(opener: Opener) -> Iterator[Spread]:
    made = Spread(opener, "model tiny version 1")
    yield made
    opener.let.set()
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(spread_module, "monotonic", made)
    return made


def settled(spread: Spread) -> None:
    """Its thread has done what it was asked for."""
    spread._thread.submit(lambda: None).result(60)


def asked(spread: Spread, count: int) -> list[ProviderSession | None]:
    return [spread.session(alone=True) for _ in range(count)]


def test_a_few_images_alone_open_it_and_wait_for_nothing(spread: Spread, opener: Opener) -> None:
    opener.let.clear()
    assert asked(spread, 30) == [None] * 30  # being opened: they run as others do
    opener.let.set()
    settled(spread)
    assert asked(spread, 2) == opener.opened * 2
    assert spread.session(alone=False) is None


def test_images_together_or_hardly_ever_alone_do_not(spread: Spread, opener: Opener) -> None:
    assert asked(spread, 7) == [None] * 7
    assert [spread.session(alone=False) for _ in range(1000)] == [None] * 1000
    settled(spread)
    assert not opener.opened


def test_threads_that_ask_at_the_same_time_open_one(spread: Spread, opener: Opener) -> None:
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait()
        asked(spread, 100)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settled(spread)
    assert len(opener.opened) == 1


def test_a_minute_of_images_together_closes_it_and_images_alone_open_it_again(
    spread: Spread, opener: Opener, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "service")
    for turn in (1, 2):
        asked(spread, 8)
        settled(spread)
        assert len(opener.opened) == turn
        clock.now_s += 59
        assert spread.session(alone=False) is None
        settled(spread)
        assert spread.session(alone=True) is opener.opened[-1]  # which counts as a use
        clock.now_s += 61
        for _ in range(3):  # the slots' threads ask before it is closed
            spread.session(alone=False)
        settled(spread)
        assert spread.session(alone=True) is None
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "opened once more, so that images that come alone get all cores",
        "its second session is closed, as images come together",
    ] * 2


def test_rest_does_not_close_it(spread: Spread, opener: Opener, clock: Clock) -> None:
    asked(spread, 8)
    settled(spread)
    clock.now_s += 3600
    assert spread.session(alone=True) is opener.opened[0]


def test_what_cannot_be_opened_is_told_once_and_left(
    spread: Spread, opener: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    opener.failing = True
    asked(spread, 8)
    settled(spread)
    opener.failing = False
    assert asked(spread, 30) == [None] * 30
    settled(spread)
    assert not opener.opened
    assert caplog.messages == ["model tiny version 1: images that come alone get one core as all others: no memory"]


def test_without_a_thread_images_run_as_others_do(
    spread: Spread, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        assert asked(spread, 20) == [None] * 20
    asked(spread, 1)
    settled(spread)
    assert spread.session(alone=True) is opener.opened[0]
    assert len(opener.opened) == 1


def test_it_is_opened_now_where_it_must_be(spread: Spread, opener: Opener) -> None:
    spread.open()
    assert asked(spread, 1) == opener.opened
    opener.failing = True
    with pytest.raises(RuntimeError, match="no memory"):
        spread.open()


def test_closing_waits_for_what_is_being_opened_and_opens_nothing_more(spread: Spread, opener: Opener) -> None:
    asked(spread, 8)
    spread.close()
    assert asked(spread, 20) == [None] * 20
    assert len(opener.opened) <= 1
