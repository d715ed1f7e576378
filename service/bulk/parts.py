"""Parts of a run: which images each is of, as plain data, and how those are read."""

from __future__ import annotations

import itertools
import tarfile
import weakref
import zipfile
from collections.abc import Callable, Iterator
from typing import Annotated, Any, BinaryIO, Final, Literal, NamedTuple, cast

import fsspec
from pydantic import BaseModel, ConfigDict, Field

from model_store.errors import Explained
from service.errors import BadEntry, BodyTooLarge

_ROWS_AT_ONCE: Final = 64
MALFORMED: Final = (zipfile.BadZipFile, tarfile.TarError, EOFError, UnicodeDecodeError, ValueError)
"""What reading a file that is no archive, table or list as one raises."""

_BROKEN_ENTRY: Final = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError)


class BulkError(Explained):
    """What keeps a run from being made or finished; one line for the person who asked for it."""


class Item(NamedTuple):
    """One image: its name within its source, and what gives its bytes, in any thread.

    ``read`` raises a ``ServiceError`` where the image is not taken, and what its place raises where it cannot be read.
    """

    key: str
    read: Callable[[], bytes]


class _Work(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Files(_Work):
    """Files ``names`` below ``root``, or by their whole paths where ``root`` is empty."""

    kind: Literal["files"] = "files"
    root: str
    names: tuple[str, ...]

    @property
    def source(self) -> str:
        return self.root

    def items(self, max_bytes: int) -> Iterator[Item]:
        for name in self.names:
            yield Item(name, _reader(joined(self.root, name), max_bytes))


class Zipped(_Work):
    """Entries of a zip archive, by their numbers in its directory."""

    kind: Literal["zip"] = "zip"
    source: str
    entries: tuple[int, ...]

    def items(self, max_bytes: int) -> Iterator[Item]:
        file = opened(self.source)
        try:
            archive = zipfile.ZipFile(file)
        except BaseException:
            file.close()
            raise
        # Entries are read after the last one was named: the file stays open for as long as a reader of it is left.
        weakref.finalize(archive, file.close)
        infos = archive.infolist()
        for number in self.entries:
            yield Item(infos[number].filename, _unzipper(archive, infos[number], max_bytes))


class Tarred(_Work):
    """Entries of a tar archive that is not compressed: name, offset and length of each."""

    kind: Literal["tar"] = "tar"
    source: str
    entries: tuple[tuple[str, int, int], ...]

    def items(self, max_bytes: int) -> Iterator[Item]:
        for name, offset, length in self.entries:
            if length > max_bytes:
                yield Item(name, _refused(max_bytes))
            else:
                yield Item(name, _reader(self.source, max_bytes, offset, length))


class Streamed(_Work):
    """A whole compressed tar archive, which can only be read from its beginning."""

    kind: Literal["stream"] = "stream"
    source: str

    def items(self, max_bytes: int) -> Iterator[Item]:
        with opened(self.source) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for entry in archive:
                if entry.isfile() and is_image(entry.name):
                    # Read now: the stream does not come back to it.
                    content = archive.extractfile(entry) if entry.size <= max_bytes else None
                    yield Item(entry.name, _refused(max_bytes) if content is None else _given(content.read()))


class Rows(_Work):
    """Rows of a Parquet file, whose ``column`` has images' bytes or paths; named by ``key_column`` or their numbers."""

    kind: Literal["rows"] = "rows"
    source: str
    column: str
    key_column: str | None
    first: int
    count: int

    def items(self, max_bytes: int) -> Iterator[Item]:
        folder = self.source.rpartition("/")[0]
        for row, (key, value) in zip(itertools.count(self.first), self._values(), strict=False):
            name = str(row if key is None else key)
            if isinstance(value, dict):  # as Hugging Face's data sets have images
                value = value.get("bytes") or value.get("path")
            if isinstance(value, bytes):
                yield Item(name, _given(value) if len(value) <= max_bytes else _refused(max_bytes))
            elif isinstance(value, str):
                yield Item(name, _reader(joined(folder, value), max_bytes))
            else:
                yield Item(name, _nothing)

    def _values(self) -> Iterator[tuple[Any, Any]]:
        import pyarrow.parquet

        columns = [self.column] if self.key_column is None else [self.column, self.key_column]
        with opened(self.source) as file, pyarrow.parquet.ParquetFile(file) as table:
            groups, skip = _groups(table, self.first)
            batches = table.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=columns)
            values = (
                (None if self.key_column is None else row[self.key_column], row[self.column])
                for batch in batches
                for row in batch.to_pylist()
            )
            yield from itertools.islice(values, skip, skip + self.count)


Work = Annotated[Files | Zipped | Tarred | Streamed | Rows, Field(discriminator="kind")]


class Part(_Work):
    """``images`` images, computed by one worker and written to one file."""

    number: int
    images: int
    work: Work

    def items(self, max_bytes: int) -> Iterator[Item]:
        """Its images, in order; ``BulkError`` where what it was planned of is no more what it was."""
        try:
            yield from self.work.items(max_bytes)
        except (IndexError, *MALFORMED) as error:
            raise BulkError(f"{self.work.source}: not as it was when the run was planned: {error}") from error


_IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def is_image(name: str) -> bool:
    """Whether a file in a folder or archive is an image by its name, and none that a desktop left there."""
    last = name.rpartition("/")[2]
    return last.lower().endswith(_IMAGE_SUFFIXES) and not last.startswith(".") and not name.startswith("__MACOSX/")


def joined(root: str, name: str) -> str:
    """``name`` below ``root``, where it is no path or URL of its own."""
    return name if not root or "://" in name or name.startswith("/") else f"{root.rstrip('/')}/{name}"


def opened(url: str) -> BinaryIO:
    """The file at ``url``, a path or whatever fsspec knows; raises ``OSError``. Close it."""
    return cast("BinaryIO", fsspec.open(url, "rb").open())


def _reader(url: str, max_bytes: int, offset: int = 0, length: int | None = None) -> Callable[[], bytes]:
    def read() -> bytes:
        files, path = fsspec.core.url_to_fs(url)
        end = offset + (max_bytes + 1 if length is None else length)
        data: bytes = files.cat_file(path, start=offset, end=end)
        if len(data) > max_bytes:
            raise _too_large(max_bytes)
        if length is not None and len(data) < length:
            raise BadEntry("the archive ends within this entry")
        return data

    return read


def _unzipper(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, max_bytes: int) -> Callable[[], bytes]:
    def read() -> bytes:
        if entry.file_size > max_bytes:
            raise _too_large(max_bytes)
        try:
            return archive.read(entry)
        except _BROKEN_ENTRY as error:
            raise BadEntry("the zip entry cannot be unpacked: it is broken, or packed in a way not taken") from error

    return read


def _given(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def _nothing() -> bytes:
    raise BadEntry("the row has neither bytes nor a path")


def _refused(max_bytes: int) -> Callable[[], bytes]:
    def read() -> bytes:
        raise _too_large(max_bytes)

    return read


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the image has too many bytes; at most {max_bytes} are taken")


def _groups(table: Any, first: int) -> tuple[list[int], int]:
    """The row groups from the one with row ``first``, and how many rows of that one come before it."""
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if first < rows:
            return list(range(group, table.num_row_groups)), first
        first -= rows
    return [], 0
