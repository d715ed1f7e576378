"""Which images calibrate, which judge, and that names and labels stay with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.images import subsets
from export.images.files import ImagesError
from export.images.subsets import Source, batches
from tests.export.conftest import TINY_INPUT

LABELS = ("bee", "cat", "dog")
Pictures = Callable[..., Path]


@pytest.fixture
def source(pictures: Pictures) -> Source:
    return Source.open(pictures(("cat", "dog"), count=6), TINY_INPUT, LABELS)


def test_a_part_is_spread_over_the_classes(source: Source) -> None:
    chosen = source.spread(4)
    assert chosen.files == ("cat/0.png", "cat/3.png", "dog/0.png", "dog/3.png")
    assert chosen.images.targets == (1, 1, 2, 2)
    assert (chosen.images.name, chosen.images.count) == ("pictures", 4)
    assert len(source.spread(100).files) == 12


def test_images_are_read_in_the_order_of_their_names(source: Source) -> None:
    whole = dict(zip(source.validation().files, source.validation().images.read(), strict=True))
    chosen = source.spread(5)
    for file, pixels in zip(chosen.files, chosen.images.read(), strict=True):
        assert np.array_equal(pixels, whole[file])
        assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)


def test_labelled_images_all_validate(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subsets, "UNLABELLED", 3)
    assert len(source.validation().files) == 12
    assert source.validation().images.targets == (1,) * 6 + (2,) * 6


def test_of_unlabelled_images_enough_validate(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source.open(pictures(("cat", "fox"), count=6), TINY_INPUT, LABELS)
    assert len(source.validation().files) == 12
    monkeypatch.setattr(subsets, "UNLABELLED", 3)
    chosen = source.validation()
    assert chosen.files == ("cat/0.png", "cat/4.png", "fox/2.png")
    assert chosen.images.targets is None
    assert "'fox'" in (chosen.images.note or "")


def test_the_rest_is_apart_and_unlabelled(source: Source) -> None:
    used = source.spread(4)
    rest = source.without(used.files)
    assert rest
    assert set(rest.files) | set(used.files) == set(source.files)
    assert not set(rest.files) & set(used.files)
    assert rest.images.targets is None
    assert source.without(source.files) is None
    assert source.unlabelled().files == source.files
    assert source.unlabelled().images.targets is None


def test_halves_share_every_label_and_no_image(pictures: Pictures) -> None:
    source = Source.open(pictures(("bee", "cat", "dog"), count=7), TINY_INPUT, LABELS)
    first, second = source.halves()
    assert set(first.files) | set(second.files) == set(source.files)
    assert not set(first.files) & set(second.files)
    assert (first.images.count, second.images.count) == (11, 10)
    for half in (first, second):
        assert list(half.files) == sorted(half.files)
        targets = list(half.images.targets or ())
        assert [LABELS[target] for target in targets] == [file.split("/")[0] for file in half.files]
        assert all(3 <= targets.count(label) <= 4 for label in range(3))
    assert [half.files for half in source.halves(0)] == [first.files, second.files]
    assert source.halves(1)[0].files != first.files


def test_unlabelled_images_have_no_halves(pictures: Pictures) -> None:
    with pytest.raises(ValueError, match="labelled"):
        Source.open(pictures(("",), count=4), TINY_INPUT, LABELS).halves()


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="no images"):
        Source.open(tmp_path, TINY_INPUT, LABELS)


@pytest.mark.parametrize(("pixels", "sizes"), [(1, [1] * 5), (128, [2, 2, 1]), (10_000, [5])])
def test_batches_hold_about_so_many_pixels(pixels: int, sizes: list[int]) -> None:
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(5)]
    found = list(batches(images, pixels))
    assert [len(batch) for batch in found] == sizes
    assert np.concatenate(found)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_no_images_are_no_batches() -> None:
    assert list(batches([], 10)) == []
