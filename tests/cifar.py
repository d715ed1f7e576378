"""CIFAR-10's test images and the published checkpoints: what their authors' code scores on them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from export.images.files import list_images

EVERY: Final = 5
"""Every fifth of the 10,000 test images tells an accuracy to half a point, in a fifth of the time."""


@dataclass(frozen=True)
class LabelledImages:
    """An archive of images in class folders: all of a set, or a part of it."""

    path: Path
    count: int
    whole: bool


def images_of(archive: Path, part: Path, whole: bool) -> LabelledImages:
    """``archive``, or every fifth of its images, written to ``part``."""
    files = list_images(archive)
    if whole:
        return LabelledImages(archive, len(files), whole)
    chosen = files[::EVERY]
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(part, "w") as target:
        for name in chosen:
            target.writestr(name, source.read(name))
    return LabelledImages(part, len(chosen), whole)


@dataclass(frozen=True)
class Authors:
    """A checkpoint, and its author's code's accuracy on all test images and on every fifth."""

    file: str
    on_all: float
    on_part: float

    def accuracy(self, images: LabelledImages) -> float:
        return self.on_all if images.whole else self.on_part


AUTHORS: Final = {
    "resnet20": Authors("resnet20-12fca82f.th", 0.8103, 0.8045),
    "resnet32": Authors("resnet32-d509ac18.th", 0.8256, 0.8190),
    "resnet56": Authors("resnet56-4bfd9763.th", 0.8320, 0.8415),
}
