"""Images on their way: few at a time, in order, each read, whatever fails beside it."""

from __future__ import annotations

import gc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.bulk import parts
from service.bulk.conveyor import Conveyor
from service.bulk.parts import Files, Item, Zipped
from service.bulk.scorer import Row, Scorer
from service.errors import BadEntry


class Told(Scorer):
    """No model: a row for each image, with what was wrong with reading it."""

    slots, batch = 2, 4

    def __init__(self) -> None:
        pass

    def buffer(self) -> Any:
        return None

    def score(self, images: Any, buffer: Any) -> list[Row]:
        return [Row(key, data if isinstance(data, BadEntry) else None) for key, data in images]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that were opened."""
    found: list[Any] = []
    original: Callable[[str], Any] = parts.opened
    monkeypatch.setattr(parts, "opened", lambda url: found.append(original(url)) or found[-1])
    return found


def test_a_few_batches_are_held_only() -> None:
    taken = 0

    def items() -> Iterator[tuple[int, Item]]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield number, Item(str(number), lambda: b"")

    with Conveyor(Told()) as conveyor:
        for done, (number, row) in enumerate(conveyor.run(items())):
            assert (number, row.key) == (done, str(done))
            assert taken - done <= 5 * Told.slots * Told.batch
            if done == 2000:
                break


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
        (ValueError("Protocol not known: nowhere"), "Protocol not known: nowhere"),
        (RuntimeError("403,\n forbidden"), "403, forbidden"),
        (KeyError(), "KeyError"),
    ],
)
def test_what_cannot_be_read_is_its_rows_failure(error: Exception, message: str) -> None:
    def fail() -> bytes:
        raise error

    with Conveyor(Told()) as conveyor:
        (_, good), (_, bad) = conveyor.run([(None, Item("a", lambda: b"")), (None, Item("b", fail))])
    assert good.error is None
    assert bad.error is not None
    assert bad.error.message == f"it cannot be read: {message}"


@pytest.mark.parametrize("name", ["nowhere://a/b.jpg", "a\0b.jpg", "missing.jpg"])
def test_paths_that_lead_nowhere(name: str) -> None:
    work = Files(root="", names=(name, name))
    with Conveyor(Told()) as conveyor:
        rows = [row for _, row in conveyor.run((None, item) for item in work.items(100))]
    assert [row.error is not None and row.error.code for row in rows] == ["bad_entry"] * 2


@pytest.mark.parametrize("entries", [1, 3, 8, 30])
def test_an_archive_is_open_until_its_last_entry_is_read(entries: int, tmp_path: Path, files: list[Any]) -> None:
    """Entries are named ahead of being read: the last is named before most are."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in range(entries):
            archive.writestr(f"{number}.jpg", b"image")
    works = [Zipped(source=str(tmp_path / "photos.zip"), entries=tuple(range(entries))) for _ in range(2)]
    with Conveyor(Told()) as conveyor:
        rows = [row for _, row in conveyor.run((None, item) for work in works for item in work.items(100))]
    assert [(row.key, row.error) for row in rows] == [(f"{number}.jpg", None) for number in range(entries)] * 2
    gc.collect()
    assert [file.closed for file in files] == [True, True]


def test_an_archive_that_is_none_is_closed(tmp_path: Path, files: list[Any]) -> None:
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(zipfile.BadZipFile):
        list(Zipped(source=str(tmp_path / "a.zip"), entries=(0,)).items(100))
    assert files[0].closed
