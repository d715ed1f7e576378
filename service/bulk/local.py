"""The engine of one process: all its cores, the parts in order, the next one begun while one is finished."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from operator import itemgetter

import pyarrow

from service.bulk.conveyor import Conveyor
from service.bulk.output import Output, Run, schema
from service.bulk.parts import Item, Part
from service.bulk.scorer import Row, Scorer

Tell = Callable[[int, int], None]
"""Hears how many more images are done, and how many of them failed."""


def run(run: Run, output: Output, scorer: Scorer, tell: Tell) -> None:
    """Compute and write what of the plan is not there yet."""
    columns = schema(run, scorer)

    def items() -> Iterator[tuple[Part, Item]]:
        for part in output.pending():
            for item in part.items(scorer.max_bytes):
                yield part, item

    with Conveyor(scorer) as conveyor:
        for part, rows in itertools.groupby(conveyor.run(items()), itemgetter(0)):
            write(part, (row for _, row in rows), output, columns, tell)


def write(part: Part, rows: Iterator[Row], output: Output, columns: pyarrow.Schema, tell: Tell) -> None:
    """The file of ``part``."""
    with output.part(part.number, columns) as writer:
        for row in rows:
            writer.write(part.work.source, row)
            tell(1, row.error is not None)
