"""A job's results: NDJSON, a line an image, in order; appended to, and sound again after whatever happened."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, Final, Self

import orjson

from service.jobs.store import disk_errors

_BLOCK: Final = 2**16


class Results:
    """The file at ``path``, made where it is not there: at first whatever is sound of it; close it.

    Lines are sound from the first on while each is whole and of the next image. What follows, a line that a dying
    worker tore or what a disk without power left, is cut off; those images are computed again.
    """

    def __init__(self, path: Path) -> None:
        self.done = 0
        self.failed = 0
        self._bytes = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            with path.open("rb") as file:
                for line in file:
                    failed = _failed(line, self.done)
                    if failed is None:
                        break
                    self._count(1, failed, len(line))
            os.ftruncate(self._descriptor, self._bytes)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, lines: list[bytes], failed: int) -> None:
        """Add ``lines``, each with its line feed; ``failed`` of them are errors. ``StorageFull`` leaves none."""
        data = memoryview(b"".join(lines))
        try:
            with disk_errors():
                written = 0
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
        except BaseException:
            os.ftruncate(self._descriptor, self._bytes)
            raise
        self._count(len(lines), failed, len(data))

    def _count(self, lines: int, failed: int, size: int) -> None:
        self.done += lines
        self.failed += failed
        self._bytes += size

    def sync(self) -> None:
        """Returns when all of it is on the disk."""
        with disk_errors():
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _failed(line: bytes, number: int) -> bool | None:
    """Whether ``line`` is an error, where it is whole and of image ``number``; else None."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return "error" in found if isinstance(found, dict) and found.get("index") == number else None


def whole_lines(path: Path) -> tuple[BinaryIO, int]:
    """The results at ``path``, open at their start, and the bytes of their whole lines: one may be on its way."""
    try:
        file = path.open("rb")
    except FileNotFoundError:  # none yet, or the job is gone; nobody will write to this one
        return io.BytesIO(), 0
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            end = start + found + 1
            break
        end = start
    file.seek(0)
    return file, end
