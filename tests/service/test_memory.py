from __future__ import annotations

import ctypes

import pytest

from service.memory import trim


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
