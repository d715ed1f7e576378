from __future__ import annotations

from service.logs.slow_requests import KEPT, MINUTES, SlowRequests


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_slowest_are_kept() -> None:
    slow = SlowRequests[int]()
    for seconds in [*range(KEPT * 2), *range(KEPT * 2)]:
        if slow.wants(seconds):
            slow.add(seconds, seconds)
    assert slow.slowest() == [seconds for seconds in reversed(range(KEPT * 3 // 2, KEPT * 2)) for _ in range(2)]
    assert not slow.wants(KEPT)


def test_they_are_forgotten_after_minutes() -> None:
    clock = Clock()
    slow = SlowRequests[str](clock)
    slow.add(9, "first minute")
    clock.now_s = 61
    slow.add(1, "second minute")
    assert slow.slowest() == ["first minute", "second minute"]
    clock.now_s = 60 * MINUTES
    assert slow.slowest() == ["second minute"]
    clock.now_s += 60 * 10_000
    assert slow.slowest() == []
