from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import BadEntry, ImageTooLarge
from service.jobs.inputs import Input, size_of
from service.jobs.record import Contents, Image
from tests.service.jobs.conftest import a_zip


def packed(path: Path, max_image_bytes: int = 100) -> Input:
    path.write_bytes(b"onetwofour!")
    contents = Contents(kind="packed", images=[Image("a", 0, 3), Image("b", 3, 3), Image(None, 6, 5)])
    return Input(path, contents, 3, max_image_bytes)


def test_packed_images(tmp_path: Path) -> None:
    with packed(tmp_path / "input") as images:
        assert images.read(0, 3, 1000) == [b"one", b"two", b"four!"]
        assert images.read(1, 1, 1000) == [b"two"]
        assert images.read(2, 10, 1000) == [b"four!"]
        assert images.read(3, 10, 1000) == []


@pytest.mark.parametrize(("enough", "count"), [(0, 1), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_no_more_is_read_than_is_enough_but_always_one(tmp_path: Path, enough: int, count: int) -> None:
    with packed(tmp_path / "input") as images:
        assert len(images.read(0, 3, enough)) == count


def test_an_image_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with packed(tmp_path / "input", max_image_bytes=3) as images:
        *others, large = images.read(0, 3, 1000)
        assert others == [b"one", b"two"]
        assert isinstance(large, ImageTooLarge)
        assert size_of(large) == 0


def test_a_bad_entry_is_its_own_error(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(a_zip({"a": b"one", "b": b"two"}, 0).replace(b"one", b"eno", 1))
    contents = Contents(kind="zip", images=[Image("b", 1, 3), Image("a", 0, 3)])
    with Input(path, contents, 2, 100) as images:
        good, bad = images.read(0, 2, 1000)
        assert good == b"two"
        assert isinstance(bad, BadEntry)
