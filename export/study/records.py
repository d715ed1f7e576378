"""Results of an experiment as a JSON file: a list of one kind of record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from export.study.training_runs import StudyError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


def save(found: Sequence[DataclassInstance], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(record) for record in found], indent=1) + "\n")


def read(kind: type[Record], path: Path) -> list[Record]:
    """What ``save`` wrote; ``StudyError`` where it is something else."""
    try:
        return [kind(**fields) for fields in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise StudyError(f"{path}: not a result of this command: {error}") from error
