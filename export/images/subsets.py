"""Parts of an image set: some to calibrate with, others to compare on, and their file names for the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from export.images.files import list_images, read_images, spread
from export.images.image_sets import ImageSet, Pixels, real_images
from model_store.manifest import Preprocessing

UNLABELLED: Final = 2048


@dataclass(frozen=True)
class NamedImages:
    """An image set and its files' paths inside the source, in the same order."""

    images: ImageSet
    files: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A folder or zip of images, not yet read: what there is, and the labels if every image has one."""

    path: Path
    preprocessing: Preprocessing
    files: tuple[str, ...]
    targets: tuple[int, ...] | None
    note: str | None

    @classmethod
    def open(cls, path: Path, preprocessing: Preprocessing, labels: Sequence[str]) -> Source:
        """``ImagesError`` where ``path`` holds no images."""
        whole = real_images(path, preprocessing, labels)
        return cls(path, preprocessing, tuple(list_images(path)), whole.targets, whole.note)

    def spread(self, count: int) -> NamedImages:
        """``count`` images, evenly spaced, so that every class folder has its share; all where there are fewer."""
        return self._only(spread(list(self.files), count), self.targets)

    def validation(self) -> NamedImages:
        """Every image where they are labelled; else as many as tell the agreement, evenly spaced."""
        return self._only(spread(list(self.files), len(self.files) if self.targets else UNLABELLED), self.targets)

    def without(self, used: Iterable[str]) -> NamedImages | None:
        """Images that are not among ``used``, taken as unlabelled; None where none is left."""
        taken = set(used)
        rest = [file for file in self.files if file not in taken]
        return self._only(spread(rest, UNLABELLED), None) if rest else None

    def unlabelled(self) -> NamedImages:
        """As many images as tell the agreement, evenly spaced, taken as unlabelled."""
        return self._only(spread(list(self.files), UNLABELLED), None)

    def halves(self, seed: int = 0) -> tuple[NamedImages, NamedImages]:
        """All images in two parts, drawn by chance and each with half of every label; ``targets`` may not be None."""
        if self.targets is None:
            raise ValueError("only labelled images are halved by label")
        generator = np.random.default_rng(seed)
        numbers = np.array(self.targets)
        # By label, and by chance within it; then every other one, so that odd numbers of images even out.
        order = np.lexsort((generator.random(len(numbers)), numbers))
        first, second = (sorted(self.files[i] for i in order[start::2]) for start in (0, 1))
        return self._only(first, self.targets), self._only(second, self.targets)

    def _only(self, files: list[str], targets: tuple[int, ...] | None) -> NamedImages:
        if targets is not None:
            target_of = dict(zip(self.files, targets, strict=True))
            targets = tuple(target_of[file] for file in files)

        def read() -> Iterator[Pixels]:
            for file in read_images(self.path, files):
                yield file.tensor(self.preprocessing)

        return NamedImages(ImageSet(self.path.name, len(files), targets, self.note, read), tuple(files))


def batches(images: Iterable[Pixels], pixels: int) -> Iterator[Pixels]:
    """Stacks ``[n, height, width, 3]`` of ``images``, each of about ``pixels`` pixels and at least one image."""
    batch: list[Pixels] = []
    for image in images:
        batch.append(image)
        if len(batch) * image.shape[0] * image.shape[1] >= pixels:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
