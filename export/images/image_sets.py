"""The pixels that verification runs on: real images where there are some, else seeded ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from export.images.files import Pixels as Pixels
from export.images.files import class_folder, list_images, read_images, spread
from model_store.manifest import Preprocessing

UNLABELLED_LIMIT: Final = 256
SEEDED_IMAGES: Final = 24


@dataclass(frozen=True)
class ImageSet:
    """Images ready for the network.

    name    -- where they are from, for the report.
    count   -- how many ``read`` gives.
    targets -- their class numbers, or None where they are not labelled with the network's own labels.
    note    -- why there are no targets, or None.
    read    -- the images, uint8 ``[height, width, 3]`` each, in the order of ``targets``.
    """

    name: str
    count: int
    targets: tuple[int, ...] | None
    note: str | None
    read: Callable[[], Iterator[Pixels]]


def real_images(source: Path, preprocessing: Preprocessing, labels: Sequence[str]) -> ImageSet:
    """The images of a folder or zip: all of them where they are labelled, else up to 256, evenly spread.

    ``ImagesError`` where there are none; ``read`` raises it for one that cannot be decoded.
    """
    names = list_images(source)
    targets, note = _targets(names, labels)
    if targets is None:
        names = spread(names, UNLABELLED_LIMIT)

    def read() -> Iterator[Pixels]:
        for file in read_images(source, names):
            yield file.tensor(preprocessing)

    return ImageSet(source.name, len(names), targets, note, read)


def _targets(names: Sequence[str], labels: Sequence[str]) -> tuple[tuple[int, ...] | None, str | None]:
    """Class numbers by the images' folders, or why there are none."""
    index = {label: i for i, label in enumerate(labels)}
    if len(index) < len(labels):
        return None, "two classes have the same label, so folders do not tell them apart"
    folders = [class_folder(name) for name in names]
    unknown = next((folder for folder in folders if folder not in index), None)
    if None in folders:
        return None, "not every image is in a class folder"
    if unknown is not None:
        return None, f"the folder {unknown!r} is not one of the labels"
    return tuple(index[folder] for folder in folders if folder is not None), None


def seeded_images(preprocessing: Preprocessing, count: int = SEEDED_IMAGES, seed: int = 0) -> ImageSet:
    """Reproducible images of smooth blobs with some noise, whose statistics are nearer to photos than white noise."""
    width, height = preprocessing.width, preprocessing.height

    def read() -> Iterator[Pixels]:
        generator = np.random.default_rng(seed)
        for i in range(count):
            cells = 2 + i % 7
            coarse = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            noise = generator.normal(0.0, 2.0 * (i % 5), (height, width, 3))
            yield np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)

    return ImageSet(f"seeded (seed {seed})", count, None, None, read)
