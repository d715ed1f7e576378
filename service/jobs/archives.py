"""Zip archives that are not trusted: entries read one by one in memory, never extracted, no name used as a path.

What an archive says of itself is bounded before it is believed: the bytes and
entries of its directory while zipfile reads it, the sizes that entries unpack
to before one is unpacked. zipfile gives no more of an entry than its size there.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Final, Self

from service.errors import BadEntry, BadRequest, BodyTooLarge, ImageTooLarge, TooManyImages
from service.jobs.record import Contents, Image, clean_name

_ENTRY: Final = b"PK\x01\x02"  # begins each entry of the directory
_STARTS: Final = (b"PK\x03\x04", b"PK\x05\x06")  # of an archive, of an empty one
_ENTRIES_PER_IMAGE: Final = 3  # folders, and the forks that macOS adds, are entries, too
_DIRECTORY_BYTES: Final = 512  # an entry of the directory, at most, on average
_ENCRYPTED: Final = 0x1 | 0x40
_TAKEN: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK: Final = 2**18
# No photo compresses like that; an entry that does, and is large, was made to cost work.
_MAX_RATIO: Final = 200
_SMALL: Final = 2**20

# What zipfile is known to raise on malformed archives; a programming error is none of them.
_MALFORMED: Final = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError,
    OverflowError,
)  # fmt: skip


def is_zip(start: bytes) -> bool:
    """Whether a file that begins with ``start`` is a zip archive."""
    return start.startswith(_STARTS)


class _Bounded(io.FileIO):
    """The archive's file; while its directory is read, no more of it than ``max_entries`` may take."""

    def __init__(self, path: Path, max_entries: int) -> None:
        super().__init__(path)
        self.opening = True
        self._max_entries = max_entries

    def read(self, size: int | None = -1, /) -> bytes:
        if self.opening:
            wanted = os.fstat(self.fileno()).st_size - self.tell() if size is None or size < 0 else size
            if wanted > max(2**17, self._max_entries * _DIRECTORY_BYTES):
                raise TooManyImages("the zip archive's directory is too large")
        data = super().read(size) or b""
        if self.opening and data.count(_ENTRY) > self._max_entries:
            raise TooManyImages("the zip archive has too many entries")
        return data


class Archive:
    """A zip archive of at most ``max_images``, each of at most ``max_image_bytes``; close it."""

    def __init__(self, path: Path, max_images: int, max_image_bytes: int) -> None:
        self._max_images = max_images
        self._max_image_bytes = max_image_bytes
        self._file = _Bounded(path, _ENTRIES_PER_IMAGE * max_images + 64)
        try:
            self._zip = zipfile.ZipFile(self._file)
        except BaseException as error:
            self._file.close()
            if isinstance(error, _MALFORMED):
                raise BadRequest("the zip archive cannot be read: it is malformed or breaks off") from error
            raise
        self._file.opening = False
        self._entries = self._zip.infolist()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    def contents(self, max_unpacked_bytes: int) -> Contents:
        """The images: all entries but folders and what desktops leave beside files.

        Raises ``TooManyImages``, ``BodyTooLarge`` where they unpack to more than ``max_unpacked_bytes``, and
        ``BadRequest`` where there is none.
        """
        images = [
            Image(clean_name(entry.filename), number, entry.file_size)
            for number, entry in enumerate(self._entries)
            if not (entry.is_dir() or _left_by_a_desktop(entry.filename))
        ]
        if len(images) > self._max_images:
            raise TooManyImages(f"too many images; at most {self._max_images} are taken in a job")
        if not images:
            raise BadRequest("the zip archive holds no file")
        if sum(image.length for image in images) > max_unpacked_bytes:
            raise BodyTooLarge(f"the zip archive unpacks to too much; at most {max_unpacked_bytes} bytes are taken")
        return Contents(kind="zip", images=images)

    def read(self, number: int) -> bytes:
        """Entry ``number`` of the directory, unpacked; ``BadEntry`` or ``ImageTooLarge`` where it cannot be."""
        entry = self._entries[number]
        if entry.flag_bits & _ENCRYPTED:
            raise BadEntry("the zip entry is encrypted")
        if entry.compress_type not in _TAKEN:
            raise BadEntry("the zip entry is packed in a way that is not taken; taken are stored and deflated")
        if entry.file_size > self._max_image_bytes:
            raise ImageTooLarge(f"the image has too many bytes; at most {self._max_image_bytes} are taken")
        if entry.file_size > max(_SMALL, _MAX_RATIO * entry.compress_size):
            raise BadEntry(f"the zip entry unpacks to more than {_MAX_RATIO} times its size")
        try:
            with self._zip.open(entry) as file:
                # In pieces, as zipfile unpacks no more at once than it is asked for.
                data = b"".join(iter(lambda: file.read(_CHUNK), b""))
        except _MALFORMED as error:
            raise BadEntry("the zip entry cannot be unpacked: it is broken") from error
        if len(data) != entry.file_size:
            raise BadEntry("the zip entry cannot be unpacked: it is shorter than it says")
        return data


def _left_by_a_desktop(name: str) -> bool:
    """``__MACOSX/._a.jpg``, ``.DS_Store``, ``Thumbs.db``: nobody's images."""
    *folders, last = name.split("/")
    return "__MACOSX" in folders[:1] or last.startswith(".") or last in ("Thumbs.db", "desktop.ini")
