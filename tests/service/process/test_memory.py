from __future__ import annotations

import ctypes
import gc

import pytest

from service.process.memory import settle, trim


def test_freed_memory_is_asked_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Library:
        def __init__(self, name: str) -> None:
            assert name == "libc.so.6"

        def malloc_trim(self, pad: int) -> None:
            asked.append(pad)

    monkeypatch.setattr(ctypes, "CDLL", Library)
    trim()
    assert asked == [0]


def test_a_library_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    trim()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    trim()


def test_what_is_there_is_looked_at_no_more() -> None:
    class Knot:
        def __init__(self) -> None:
            self.myself = self

    before, after = Knot(), None
    settle()
    try:
        after = Knot()
        assert gc.get_freeze_count()
        looked_at = {id(there) for there in gc.get_objects()}
        assert id(after) in looked_at
        assert id(before) not in looked_at
    finally:
        gc.unfreeze()
