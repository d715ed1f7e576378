"""What a command's results look like as rows of columns and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from service.client.command.asking import Outcome
from service.client.results import Classification, Embedding, Explanation, Problem

Kind: TypeAlias = Literal["text", "whole", "number", "numbers"]
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """``width`` is its characters on a terminal: 0 where it is not shown there, -1 for as many as there are."""

    name: str
    kind: Kind = "text"
    width: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """``parts`` gives a result's rows, without the columns that all have: file, model, version, error."""

    columns: tuple[Column, ...]
    parts: Callable[[Any], Iterable[Row]]

    def rows(self, outcome: Outcome) -> list[Row]:
        """One or several rows; one with the ``error`` where there is no result."""
        model, error = outcome.result.model, outcome.result.error
        common: Row = {
            "file": outcome.source.name,
            "model": model.name if model else None,
            "version": model.version if model else None,
            "error": _told(error) if error else None,
        }
        if error is not None:
            return [common]
        return [common | part | outcome.more for part in self.parts(outcome.result)]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The result as the API has it, with the file's name before it."""
    said = outcome.result.model_dump(exclude_none=True)
    return {"file": outcome.source.name, **said, **outcome.more}


def _told(error: Problem) -> str:
    return f"{error.code}: {error.message}"


def _layout(parts: Callable[[Any], Iterable[Row]], *columns: Column) -> Layout:
    file, error = Column("file", width=-1), Column("error", width=-1)
    return Layout((file, Column("model"), Column("version"), *columns, error), parts)


def _predictions(result: Classification) -> Iterable[Row]:
    # An image that the service abstained from has a row, too.
    return [
        {"rank": rank, "label": best.label, "index": best.index, "probability": best.probability}
        for rank, best in enumerate(result.predictions or (), start=1)
    ] or [{}]


def _embedding(result: Embedding) -> Iterable[Row]:
    vector = result.embedding or []
    return [{"dimensions": len(vector), "embedding": vector}]


def _explanation(result: Explanation) -> Iterable[Row]:
    heatmap = result.heatmap
    if heatmap is None:
        return [{}]
    left, upper, right, lower = heatmap.box
    box = {"left": left, "upper": upper, "right": right, "lower": lower}
    return [{"label": heatmap.label, "index": heatmap.index, "logit": heatmap.logit, **box}]


PREDICTIONS: Final = _layout(
    _predictions,
    Column("rank", "whole", 4),
    Column("label", width=24),
    Column("index", "whole"),
    Column("probability", "number", 11),
)
EMBEDDINGS: Final = _layout(_embedding, Column("dimensions", "whole", 10), Column("embedding", "numbers", 40))
EXPLANATIONS: Final = _layout(
    _explanation,
    Column("label", width=24),
    Column("index", "whole"),
    Column("logit", "number", 9),
    *(Column(side, "number") for side in ("left", "upper", "right", "lower")),
    Column("saved", width=-1),
)
