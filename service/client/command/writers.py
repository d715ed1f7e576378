"""Results written away as they come: table, CSV, JSON, NDJSON; Parquet is in ``parquet.py``."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO, Final, Protocol

import orjson
from rich.cells import cell_len, set_cell_size

from service.client.command.asking import Outcome
from service.client.command.plain import plain
from service.client.command.records import Column, Layout, as_json

_GAP: Final = "  "
_LEAST_WIDTH: Final = 12
_SHOWN_NUMBERS: Final = 4


class Writer(Protocol):
    """Takes outcomes in their order; ``close`` ends what is written so that it can be read."""

    def write(self, outcomes: Sequence[Outcome]) -> None: ...

    def close(self) -> None: ...


class TableWriter:
    """Lines of aligned columns. Their widths are known before the first result: of ``names``, the files', and fixed.

    Control characters are shown as a mark: a label or a file's name must not steer the terminal.
    """

    def __init__(self, file: BinaryIO | None, layout: Layout, names: Sequence[str], line_width: int) -> None:
        self._file = file
        self._layout = layout
        self._columns = [column for column in layout.columns if column.width]
        self._widths = _widths(self._columns, names, line_width)
        self._began = False

    def write(self, outcomes: Sequence[Outcome]) -> None:
        if not self._began:
            self._began = True
            self._line([column.name for column in self._columns])
        for outcome in outcomes:
            for row in self._layout.rows(outcome):
                self._line([_shown(row.get(column.name)) for column in self._columns])

    def close(self) -> None:
        if self._file is not None:
            self._file.flush()

    def _line(self, cells: list[str]) -> None:
        fitted = [
            _fit(cell, column, width) for cell, column, width in zip(cells, self._columns, self._widths, strict=True)
        ]
        # The error, which comes last, is shown whole.
        line = _GAP.join([*fitted[:-1], cells[-1]]).rstrip()
        if self._file is None:
            # Looked up anew each time: a progress bar puts itself in standard output's place.
            sys.stdout.write(line + "\n")
        else:
            self._file.write(line.encode() + b"\n")


class CsvWriter:
    """A row each, with a header; numbers of an embedding are a JSON list in their cell."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file = file
        self._layout = layout
        self._names = [column.name for column in layout.columns]
        self._began = False

    def write(self, outcomes: Sequence[Outcome]) -> None:
        rows = (row for outcome in outcomes for row in self._layout.rows(outcome))
        cells = [[_cell(row.get(name)) for name in self._names] for row in rows]
        self._put(cells if self._began else [self._names, *cells])
        self._began = True

    def close(self) -> None:
        self._file.flush()

    def _put(self, rows: list[list[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())
        self._file.flush()


class NdjsonWriter:
    """A JSON object a line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, outcomes: Sequence[Outcome]) -> None:
        self._file.write(b"".join(orjson.dumps(as_json(outcome)) + b"\n" for outcome in outcomes))
        self._file.flush()

    def close(self) -> None:
        self._file.flush()


class JsonWriter:
    """One JSON list, an object a line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._before = b"[\n"

    def write(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._file.write(self._before + orjson.dumps(as_json(outcome)))
            self._before = b",\n"
        self._file.flush()

    def close(self) -> None:
        self._file.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")
        self._file.flush()


def _cell(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, list) else value


def _widths(columns: Sequence[Column], names: Sequence[str], line_width: int) -> list[int]:
    """Files get what they need, at most what the fixed columns leave of the line."""
    fixed = sum(column.width for column in columns if column.width > 0) + len(_GAP) * len(columns)
    longest = max((cell_len(_shown(name)) for name in names), default=0)
    free = max(_LEAST_WIDTH, min(longest, line_width - fixed))
    return [column.width if column.width > 0 else free for column in columns]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        some = " ".join(f"{number:.4f}" for number in value[:_SHOWN_NUMBERS])
        return some + (" ..." if len(value) > _SHOWN_NUMBERS else "")
    return plain(str(value))


def _fit(cell: str, column: Column, width: int) -> str:
    """``cell`` as wide as its column: numbers to the right, what is too long cut with a mark."""
    if cell_len(cell) > width:
        return set_cell_size(cell, width - 1) + "…"
    return cell.rjust(width) if column.kind in ("whole", "number") else set_cell_size(cell, width)
