"""A job's images, read from its input file one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

from service.errors import ImageError, ImageTooLarge
from service.jobs.archives import Archive
from service.jobs.record import Contents, Image


class _Reader(Protocol):
    def read(self, image: Image) -> bytes: ...

    def close(self) -> None: ...


class _Packed:
    """Bytes in a file."""

    def __init__(self, path: Path, max_image_bytes: int) -> None:
        self._file = path.open("rb")
        self._max_image_bytes = max_image_bytes

    def read(self, image: Image) -> bytes:
        if image.length > self._max_image_bytes:
            raise ImageTooLarge(f"the image has too many bytes; at most {self._max_image_bytes} are taken")
        self._file.seek(image.start)
        return self._file.read(image.length)

    def close(self) -> None:
        self._file.close()


class _Zipped:
    def __init__(self, path: Path, max_images: int, max_image_bytes: int) -> None:
        self._archive = Archive(path, max_images, max_image_bytes)

    def read(self, image: Image) -> bytes:
        return self._archive.read(image.start)

    def close(self) -> None:
        self._archive.close()


class Input:
    """The images of ``contents`` in the file at ``path``; close it."""

    def __init__(self, path: Path, contents: Contents, max_images: int, max_image_bytes: int) -> None:
        self.images = contents.images
        self._reader: _Reader
        if contents.kind == "zip":
            self._reader = _Zipped(path, max_images, max_image_bytes)
        else:
            self._reader = _Packed(path, max_image_bytes)

    def read(self, start: int, count: int, enough_bytes: int) -> list[bytes | ImageError]:
        """The images from number ``start``: up to ``count``, fewer once they have ``enough_bytes``, but always one.

        One that cannot be had is its error.
        """
        found: list[bytes | ImageError] = []
        size = 0
        for image in self.images[start : start + count]:
            data = self._one(image)
            found.append(data)
            size += size_of(data)
            if size >= enough_bytes:
                break
        return found

    def _one(self, image: Image) -> bytes | ImageError:
        try:
            return self._reader.read(image)
        except ImageError as error:
            return error

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def size_of(data: bytes | ImageError) -> int:
    """Bytes of an image; an error has none."""
    return 0 if isinstance(data, ImageError) else len(data)
