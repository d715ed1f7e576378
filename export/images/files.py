"""Images from a folder or a zip file: for training, verification and calibration.

A folder a class, as in ``cat/0001.jpg``, gives labels; images at the top have none.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.errors import ExportError
from model_store.manifest import Preprocessing
from model_store.transforms import load_view, scale_jpeg, to_rgb, view_tensor

Pixels = npt.NDArray[np.uint8]
# Of one encoded image; the largest that Pillow decodes unasked has 0.5 GB as plain pixels.
MAX_IMAGE_BYTES: Final = 2**29
_HIDDEN: Final = (".", "__")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class ImagesError(ExportError):
    """The images cannot be read; the message names the file."""


@dataclass(frozen=True)
class ImageFile:
    """One encoded image: its path inside the source, its class folder (or None), its bytes."""

    path: str
    label: str | None
    data: bytes

    def rgb(self) -> Image.Image:
        """The image upright, whole; ``ImagesError`` where it cannot be decoded."""
        with self._opened() as image:
            return to_rgb(image)

    def tensor(self, preprocessing: Preprocessing) -> Pixels:
        """What the network takes, as the service makes it: uint8 ``[height, width, 3]``."""
        with self._opened() as image:
            view = load_view(image, preprocessing)
        return view_tensor(view, preprocessing)

    def scales(self, preprocessing: Preprocessing) -> bool:
        """Whether the image is a JPEG large enough to be decoded at a part of its size."""
        with self._opened() as image:
            return scale_jpeg(image, preprocessing) > 1

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        try:
            with Image.open(io.BytesIO(self.data)) as image:
                yield image
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ImagesError(f"{self.path}: cannot be decoded: {error}") from error


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(_HIDDEN) for part in path.parts)


def class_folder(name: str) -> str | None:
    """The folder that holds the image ``name``; None for one at the top."""
    return PurePosixPath(name).parent.name or None


def _files(source: Path) -> Iterator[str]:
    """The files below ``source``, those of linked folders too; each folder once, as links may go round."""
    seen: set[tuple[int, int]] = set()
    for folder, inside, files in os.walk(source, followlinks=True):
        status = Path(folder).stat()
        place = status.st_dev, status.st_ino
        if place in seen:
            inside.clear()
            continue
        seen.add(place)
        inside[:] = sorted(name for name in inside if not name.startswith(_HIDDEN))
        yield from (path.relative_to(source).as_posix() for name in files if (path := Path(folder, name)).is_file())


def list_images(source: Path) -> list[str]:
    """Paths of the images in ``source``, sorted."""
    if source.is_dir():
        found = list(_files(source))
    elif zipfile.is_zipfile(source):
        with _opened_zip(source) as archive:
            found = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    else:
        raise ImagesError(f"{source}: neither a folder nor a zip file")
    images = sorted(name for name in found if _is_image(PurePosixPath(name)))
    if not images:
        raise ImagesError(f"{source}: no images ({', '.join(sorted(SUFFIXES))}) found")
    return images


def read_images(source: Path, names: list[str] | None = None) -> Iterator[ImageFile]:
    """The images called ``names`` (all, sorted, where not given)."""
    names = list_images(source) if names is None else names
    if source.is_dir():
        for name in names:
            yield ImageFile(name, class_folder(name), _read_file(source / name))
        return
    with _opened_zip(source) as archive:
        for name in names:
            yield ImageFile(name, class_folder(name), _read_member(archive, name))


@contextmanager
def _opened_zip(source: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise ImagesError(f"{source}: a damaged zip file: {error}") from error
    with archive:
        yield archive


def _check_length(name: str, length: int) -> None:
    """Before it is read: a few bytes of a zip file may unpack to more than the machine has."""
    if length > MAX_IMAGE_BYTES:
        raise ImagesError(f"{name}: {length} bytes; {MAX_IMAGE_BYTES} are the most that is read of an image")


def _read_file(path: Path) -> bytes:
    try:
        _check_length(str(path), path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise ImagesError(f"{path}: {error.strerror or error}") from error


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        # zipfile unpacks no more than the length that it says here.
        _check_length(f"{archive.filename}: {name}", archive.getinfo(name).file_size)
        return archive.read(name)
    except (KeyError, OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ImagesError(f"{archive.filename}: {name} cannot be read: {error}") from error


def spread(names: list[str], count: int) -> list[str]:
    """``count`` of ``names``, evenly spaced, so that every class folder has its share."""
    if count >= len(names):
        return names
    return [names[i * len(names) // count] for i in range(count)]
