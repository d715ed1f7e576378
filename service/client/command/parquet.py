"""Results as Parquet, by pyarrow, which is an extra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO, Final

from service.client.command.asking import Outcome
from service.client.command.records import Kind, Layout, Row

HOW_TO_INSTALL: Final = "Parquet needs pyarrow: pip install pyarrow"
# Rows, and numbers in them, that are held until they are written as one group.
_GROUP_ROWS: Final = 4096
_GROUP_NUMBERS: Final = 4 * 2**20


class ParquetWriter:
    """A column each; embeddings are lists of float32. Raises ``ImportError`` where pyarrow is not installed."""

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        import pyarrow
        import pyarrow.parquet

        types: dict[Kind, Any] = {
            "text": pyarrow.string(),
            "whole": pyarrow.int64(),
            "number": pyarrow.float64(),
            "numbers": pyarrow.list_(pyarrow.float32()),
        }
        self._layout = layout
        self._table = pyarrow.Table
        self._schema = pyarrow.schema([(column.name, types[column.kind]) for column in layout.columns])
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema)
        self._rows: list[Row] = []
        self._numbers = 0

    def write(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            rows = self._layout.rows(outcome)
            self._rows += rows
            self._numbers += sum(len(value) for row in rows for value in row.values() if isinstance(value, list))
        if len(self._rows) >= _GROUP_ROWS or self._numbers >= _GROUP_NUMBERS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._table.from_pylist(self._rows, schema=self._schema))
            self._rows, self._numbers = [], 0
