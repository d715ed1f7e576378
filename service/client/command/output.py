"""Where the results go and in which form."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias, get_args

import click

from service.client.command.parquet import HOW_TO_INSTALL, ParquetWriter
from service.client.command.plain import plain
from service.client.command.records import Layout
from service.client.command.writers import CsvWriter, JsonWriter, NdjsonWriter, TableWriter, Writer

Format: TypeAlias = Literal["table", "csv", "json", "ndjson", "parquet"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_SUFFIXES: Final[dict[str, Format]] = {
    ".txt": "table",
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_FILE_LINE_WIDTH: Final = 200


class Failed(click.ClickException):
    """Nothing, or nothing more, can be done; one line says why."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


def form(given: Format | None, output: Path | None, piped: Format) -> Format:
    """The format asked for, or the file's by its suffix, or a table on a terminal, or ``piped``."""
    if given == "parquet" and output is None:
        raise click.UsageError("--format parquet needs --output FILE")
    if given is not None:
        return given
    if output is None:
        return "table" if sys.stdout.isatty() else piped
    try:
        return _SUFFIXES[output.suffix.lower()]
    except KeyError:
        raise click.UsageError(f"{output}: no known suffix ({', '.join(_SUFFIXES)}); name a --format") from None


@contextmanager
def opened(output: Path | None, chosen: Format, layout: Layout, names: Sequence[str]) -> Iterator[Writer]:
    """A writer to ``output``, or standard output; what it wrote is whole when the block ends, however it ends."""
    if output is None:
        writer = _writer(sys.stdout.buffer, chosen, layout, names, terminal=sys.stdout.isatty())
        try:
            yield writer
        finally:
            writer.close()
        return
    try:
        file = output.open("wb")
    except OSError as error:
        raise Failed(f"{output}: {error.strerror}") from error
    with file:
        writer = _writer(file, chosen, layout, names, terminal=False)
        try:
            yield writer
        finally:
            writer.close()


def _writer(file: BinaryIO, chosen: Format, layout: Layout, names: Sequence[str], *, terminal: bool) -> Writer:
    match chosen:
        case "table":
            width = shutil.get_terminal_size().columns if terminal else _FILE_LINE_WIDTH
            return TableWriter(None if terminal else file, layout, names, width)
        case "csv":
            return CsvWriter(file, layout)
        case "json":
            return JsonWriter(file)
        case "ndjson":
            return NdjsonWriter(file)
        case "parquet":
            return ParquetWriter(file, layout)


def check_parquet() -> None:
    """Fails where pyarrow is not installed, before any file is touched."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise Failed(HOW_TO_INSTALL) from error
