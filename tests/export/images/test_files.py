"""Folders and zips of images, and the sets made of them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.images.files import ImagesError, class_folder, list_images, read_images, spread
from export.images.image_sets import UNLABELLED_LIMIT, real_images, seeded_images
from tests.export.conftest import TINY_INPUT

Pictures = Callable[..., Path]


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder).as_posix())
    return target


def test_folder_and_zip_are_the_same(pictures: Pictures, tmp_path: Path) -> None:
    folder = pictures()
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    archive = zipped(folder, tmp_path / "a.zip")
    names = list_images(folder)
    assert names == list_images(archive) == [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)]
    assert list(read_images(folder)) == list(read_images(archive))
    assert [file.label for file in read_images(folder)] == ["cat"] * 3 + ["dog"] * 3


def test_linked_folders_are_entered_once(pictures: Pictures, tmp_path: Path) -> None:
    folder = pictures(("cat",))
    elsewhere = tmp_path / "elsewhere"
    (folder / "cat").rename(elsewhere)
    (folder / ".cat").symlink_to(elsewhere)
    (folder / "cat").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(folder)
    (elsewhere / "gone.png").symlink_to(tmp_path / "gone.png")
    assert list_images(folder) == [f"cat/{i}.png" for i in range(3)]


def test_class_folder() -> None:
    assert class_folder("val/cat/1.png") == "cat"
    assert class_folder("1.png") is None


def test_spread_takes_its_share_of_every_part() -> None:
    names = [str(i) for i in range(10)]
    assert spread(names, 4) == ["0", "2", "5", "7"]
    assert spread(names, 99) == names


@pytest.mark.parametrize("content", [None, b"no zip"])
def test_source_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "a.zip"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(ImagesError, match="neither a folder nor a zip"):
        list_images(source)


def test_source_without_images(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="no images"):
        list_images(tmp_path)


def test_damaged_member_is_named(pictures: Pictures, tmp_path: Path) -> None:
    archive = zipped(pictures(), tmp_path / "a.zip")
    data = bytearray(archive.read_bytes())
    data[80:90] = b"0123456789"
    archive.write_bytes(data)
    with pytest.raises(ImagesError, match=r"cat/0\.png"):
        list(read_images(archive))


def test_undecodable_image_is_named(pictures: Pictures) -> None:
    folder = pictures()
    (folder / "cat" / "1.png").write_bytes(b"no image")
    images = real_images(folder, TINY_INPUT, ("cat", "dog"))
    with pytest.raises(ImagesError, match=r"cat/1\.png: cannot be decoded"):
        list(images.read())


def test_labelled_images_are_all_used(pictures: Pictures) -> None:
    images = real_images(pictures(count=130), TINY_INPUT, ("bird", "cat", "dog"))
    assert images.count == 260 > UNLABELLED_LIMIT
    assert images.targets == (1,) * 130 + (2,) * 130
    assert images.note is None


@pytest.mark.parametrize(
    ("folders", "labels", "note"),
    [
        (("cat", "cow"), ("cat", "dog"), "'cow' is not one of the labels"),
        (("cat", ""), ("cat", "dog"), "not every image is in a class folder"),
        (("crane",), ("crane", "crane"), "two classes have the same label"),
    ],
)
def test_unlabelled_images_say_why(
    pictures: Pictures, folders: tuple[str, ...], labels: tuple[str, ...], note: str
) -> None:
    images = real_images(pictures(folders), TINY_INPUT, labels)
    assert images.targets is None
    assert images.note
    assert note in images.note


def test_unlabelled_images_are_limited(pictures: Pictures) -> None:
    images = real_images(pictures(("cow",), count=300), TINY_INPUT, ("cat",))
    assert images.count == len(list(images.read())) == UNLABELLED_LIMIT


def test_seeded_images_are_reproducible_and_smooth() -> None:
    images = seeded_images(TINY_INPUT, count=6, seed=2)
    first, second = np.stack(list(images.read())), np.stack(list(images.read()))
    assert first.dtype == np.uint8
    assert first.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first.reshape(6, -1), axis=0)) == 6
    # White noise of this range would differ by about 85 from pixel to pixel.
    assert np.abs(np.diff(first[0].astype(int), axis=1)).mean() < 40
