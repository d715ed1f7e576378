"""Which images the command line was given: files, folders, globs and standard input."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from model_store.command_line.matches import once
from service.client.results import Problem

STDIN: Final = "-"
# What a folder's images are known by; files that are named are taken whatever they are called.
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
# No service takes more in its default settings, by far; a file named by mistake must not fill the memory.
MAX_FILE_BYTES: Final = 256 * 2**20


class NoImages(Exception):
    """What was named is not there; one line says what."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image by its path; ``place`` is its path below the folder that was named, or its name.

    ``data``: its bytes, where it came over standard input.
    """

    path: str
    place: str
    data: bytes | None = None

    @property
    def name(self) -> str:
        """For people and files: without bytes that are no UTF-8."""
        return printable(self.path)


def printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def find(names: Sequence[str]) -> list[Source]:
    """All images that ``names`` stand for, in their order, a folder's by path; ``NoImages`` where there is none."""
    if names.count(STDIN) > 1:
        raise NoImages("standard input (-) can be read only once")
    return [source for name in names for source in _of(name)]


def _of(name: str) -> list[Source]:
    if name == STDIN:
        return [Source(STDIN, "stdin", sys.stdin.buffer.read(MAX_FILE_BYTES + 1))]
    if os.path.isdir(name):  # noqa: PTH112 (paths stay as they were typed)
        if below := list(_below(name)):
            return below
        raise NoImages(f"{printable(name)}: no images in this folder ({', '.join(sorted(SUFFIXES))})")
    if os.path.lexists(name):
        return [Source(name, PurePath(name).name)]
    found = glob.glob(name, recursive=True) if glob.has_magic(name) else []  # noqa: PTH207
    if not found:
        raise NoImages(f"{printable(name)}: no such file")
    matches = once({match.rstrip("/"): Path(match).is_dir() for match in found})
    return [source for match in matches for source in _matched(match)]


def _matched(name: str) -> Iterable[Source]:
    """A glob's match; folders among them may hold no images."""
    return _below(name) if Path(name).is_dir() else [Source(name, PurePath(name).name)]


def _below(folder: str) -> Iterator[Source]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if PurePath(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                path = os.path.join(root, name)  # noqa: PTH118
                yield Source(path, os.path.relpath(path, folder))


def read(source: Source) -> bytes | Problem:
    """The bytes of ``source``, or why there are none."""
    try:
        data = _file(Path(source.path)) if source.data is None else source.data
    except OSError as error:
        return Problem(code="unreadable", message=error.strerror or str(error))
    if not data:
        return Problem(code="empty", message="the file is empty")
    if len(data) > MAX_FILE_BYTES:
        return Problem(code="too_large", message=f"more than {MAX_FILE_BYTES} bytes")
    return data


def _file(path: Path) -> bytes:
    # A named pipe would be waited for when it is opened.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)
