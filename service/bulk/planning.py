"""What was named on the command line, as parts: folders, globs, archives, lists, tables; here or on a store."""

from __future__ import annotations

import itertools
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import fsspec

from model_store.command_line.matches import once
from service.bulk.parts import (
    MALFORMED,
    BulkError,
    Files,
    Part,
    Rows,
    Streamed,
    Tarred,
    Work,
    Zipped,
    is_image,
    joined,
    opened,
)

T = TypeVar("T")

_COMPRESSED: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_LISTS: Final = (".txt", ".list")


@dataclass(frozen=True)
class Asked:
    """What is to be scored: ``column`` and ``key_column`` are of Parquet files."""

    inputs: tuple[str, ...]
    column: str | None
    key_column: str | None
    part_images: int


def plan(asked: Asked) -> Iterator[Part]:
    """The parts, always in the same order for the same files; ``BulkError`` where an input cannot be read."""
    works = itertools.chain.from_iterable(_works(name, asked) for name in asked.inputs)
    for number, (images, work) in enumerate((images, work) for images, work in works if images):
        yield Part(number=number, images=images, work=work)


def _works(name: str, asked: Asked) -> Iterator[tuple[int, Work]]:
    try:
        files, path = fsspec.core.url_to_fs(name)
        if files.isdir(path):
            yield from _folder(name, files, path, asked)
        elif files.exists(path):
            yield from _file(name, asked)
        elif any(letter in name for letter in "*?["):
            yield from _glob(files, path, asked)
        else:
            raise BulkError(f"{name}: no such file or folder")
    except ImportError as error:  # fsspec says which package its protocol needs
        raise BulkError(f"{name}: {error}") from error
    except (OSError, *MALFORMED) as error:
        raise BulkError(f"{name}: cannot be read: {error}") from error


def _folder(name: str, files: Any, path: str, asked: Asked) -> Iterator[tuple[int, Work]]:
    if asked.column is not None:
        for table in sorted(files.glob(f"{path.rstrip('/')}/**/*.parquet")):
            yield from _table(files.unstrip_protocol(table), asked)
        return
    for names in _cut(_below(files, path.rstrip("/")), asked.part_images):
        yield len(names), Files(root=name, names=names)


def _below(files: Any, path: str) -> Iterator[str]:
    """The images at any depth, by name; memory for one folder's names at a time."""
    listing = sorted(files.ls(path, detail=True), key=lambda entry: str(entry["name"]))
    for entry in listing:
        name = str(entry["name"]).rstrip("/").rpartition("/")[2]
        if entry["type"] == "directory":
            if not name.startswith(".") and name != "__MACOSX":
                yield from (f"{name}/{below}" for below in _below(files, str(entry["name"]).rstrip("/")))
        elif is_image(name) and (entry["type"] == "file" or (entry.get("islink") and files.isfile(entry["name"]))):
            yield name


def _is_hidden(name: str) -> bool:
    return name.rstrip("/").rpartition("/")[2].startswith(".")


def _glob(files: Any, path: str, asked: Asked) -> Iterator[tuple[int, Work]]:
    """Images that match are of parts together; archives and tables each for itself."""
    found = files.glob(path, detail=True)
    shown = {name.rstrip("/"): entry["type"] == "directory" for name, entry in found.items() if not _is_hidden(name)}
    matches = once(shown)
    if not matches:
        raise BulkError(f"{path}: nothing matches")
    for of_images, group in itertools.groupby(matches, is_image):
        names = (files.unstrip_protocol(match).removeprefix("file://") for match in group)
        if of_images:
            for cut in _cut(names, asked.part_images):
                yield len(cut), Files(root="", names=cut)
        else:
            for name in names:
                yield from _works(name, asked)


def _file(name: str, asked: Asked) -> Iterator[tuple[int, Work]]:
    lower = name.lower()
    if lower.endswith(".parquet"):
        yield from _table(name, asked)
    elif lower.endswith(".zip"):
        yield from _zip(name, asked)
    elif lower.endswith(".tar"):
        yield from _tar(name, asked)
    elif lower.endswith(_COMPRESSED):
        yield _images_in(name), Streamed(source=name)
    elif lower.endswith(_LISTS):
        yield from _list(name, asked)
    else:
        yield 1, Files(root="", names=(name,))


def _table(name: str, asked: Asked) -> Iterator[tuple[int, Work]]:
    if asked.column is None:
        raise BulkError(f"{name}: a table needs --column, the one with the images' bytes or paths")
    import pyarrow.parquet

    with opened(name) as file, pyarrow.parquet.ParquetFile(file) as table:
        there = table.schema_arrow.names
        rows = table.metadata.num_rows
    for column in (asked.column, asked.key_column):
        if column is not None and column not in there:
            raise BulkError(f"{name}: no column {column!r}; there: {', '.join(there)}")
    for first in range(0, rows, asked.part_images):
        count = min(asked.part_images, rows - first)
        yield count, Rows(source=name, column=asked.column, key_column=asked.key_column, first=first, count=count)


def _zip(name: str, asked: Asked) -> Iterator[tuple[int, Work]]:
    with opened(name) as file, zipfile.ZipFile(file) as archive:
        numbers = [n for n, entry in enumerate(archive.infolist()) if is_image(entry.filename) and not entry.is_dir()]
    for entries in _cut(numbers, asked.part_images):
        yield len(entries), Zipped(source=name, entries=entries)


def _tar(name: str, asked: Asked) -> Iterator[tuple[int, Work]]:
    for entries in _cut(_tar_entries(name), asked.part_images):
        yield len(entries), Tarred(source=name, entries=entries)


def _tar_entries(name: str) -> Iterator[tuple[str, int, int]]:
    with opened(name) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        while (entry := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all that it has seen
            if entry.isfile() and not entry.issparse() and is_image(entry.name):
                yield entry.name, entry.offset_data, entry.size


def _images_in(name: str) -> int:
    with opened(name) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
        return sum(entry.isfile() and is_image(entry.name) for entry in archive)


def _list(name: str, asked: Asked) -> Iterator[tuple[int, Work]]:
    """A path or URL a line; relative ones are of the list's folder."""
    folder = name.rpartition("/")[0]
    with opened(name) as file:
        lines = (line.decode().strip() for line in file)
        paths = (joined(folder, line) for line in lines if line and not line.startswith("#"))
        for names in _cut(paths, asked.part_images):
            yield len(names), Files(root="", names=names)


def _cut(values: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    iterator = iter(values)
    while cut := tuple(itertools.islice(iterator, size)):
        yield cut
