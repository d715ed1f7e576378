"""The folder of results, here or on a store: the run, its plan, and a Parquet file for each finished part.

    OUT.parquet/
      _run.json        what is computed: model, options; its being there says that the plan is whole
      _plan.parquet    the parts
      part-00000.parquet ...
      _unfinished-...  what is being written here, or was by one that was killed

Readers of Parquet folders skip names that begin with an underscore.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

import fsspec
import pyarrow
import pyarrow.parquet
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict

from model_store.manifest import Precision
from service.bulk.parts import BulkError, Part
from service.bulk.scorer import Row, Scorer
from service.settings import Provider

_RUN: Final = "_run.json"
_PLAN: Final = "_plan.parquet"
_UNFINISHED: Final = "_unfinished-"
_PLAN_SCHEMA: Final = pyarrow.schema(
    [("number", pyarrow.int64()), ("images", pyarrow.int64()), ("part", pyarrow.string())]
)
_GROUP_ROWS: Final = 1000
_PREDICTION: Final = pyarrow.struct(
    [("label", pyarrow.string()), ("index", pyarrow.int32()), ("probability", pyarrow.float32())]
)


class Run(BaseModel):
    """What a run computes; one that goes on must be of the same.

    Also by what: ``sha256`` is of the file that is run in ``precision`` on ``provider``, whatever chose them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[str, ...]
    column: str | None
    key_column: str | None
    model: str
    version: str
    sha256: str
    precision: Precision
    provider: Provider
    top_k: int
    embed: bool
    part_images: int


def schema(run: Run, scorer: Scorer) -> pyarrow.Schema:
    """Columns of the results, and in its metadata what made them."""
    columns = [
        ("source", pyarrow.string()),
        ("key", pyarrow.string()),
        ("label", pyarrow.string()),
        ("probability", pyarrow.float32()),
        ("predictions", pyarrow.list_(_PREDICTION)),
        ("energy", pyarrow.float32()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("error", pyarrow.string()),
        ("message", pyarrow.string()),
    ]
    if run.embed:
        columns.append(("embedding", pyarrow.list_(pyarrow.float32(), scorer.stored.manifest.outputs.embedding)))
    about = {
        "model": run.model,
        "version": run.version,
        "provider": scorer.provider,
        "precision": scorer.precision,
        "sha256": scorer.sha256,
    }
    return pyarrow.schema(columns, metadata={f"resnet.{name}": value for name, value in about.items()})


class Output:
    """The results at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._files, path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise BulkError(f"{url}: {error}") from error
        self._root = path.rstrip("/")

    def begin(self, run: Run, parts: Iterable[Part]) -> bool:
        """Write ``run`` and its plan, or find them there: whether an earlier run goes on.

        ``BulkError`` where what is there is of another run, or of none of ours, and where the plan has no image.
        """
        if self._files.exists(self._path(_RUN)):
            self._check_same(run)
            return True
        if self._files.exists(self._root) and not all(n == _PLAN or n.startswith(_UNFINISHED) for n in self._names()):
            raise BulkError(f"{self.url}: there already, and none of bulk's; name another --output")
        self._files.makedirs(self._root, exist_ok=True)
        with self._writing(_PLAN, _PLAN_SCHEMA) as plan:
            images = 0
            for part in parts:
                images += part.images
                row = {"number": part.number, "images": part.images, "part": _json(part)}
                plan.write_table(pyarrow.Table.from_pylist([row], schema=_PLAN_SCHEMA))
        if not images:  # and so no run has begun: there may be some later
            raise BulkError(f"{', '.join(run.inputs)}: no image in it")
        with self._atomic(_RUN) as file:
            file.write(_json(run, indent=2).encode() + b"\n")
        return False

    def _check_same(self, run: Run) -> None:
        try:
            before = Run.model_validate(json.loads(self._files.cat_file(self._path(_RUN))))
        except ValueError as error:
            raise BulkError(f"{self.url}/{_RUN} cannot be read; name another --output") from error
        different = [name for name in Run.model_fields if getattr(before, name) != getattr(run, name)]
        if different:
            was = ", ".join(f"{name} {getattr(before, name)!r}" for name in different)
            raise BulkError(f"{self.url} is of another run ({was}); name another --output, or the same options")

    def tidy(self) -> None:
        """Remove what killed writers left half written; for when all parts are there, and nothing is written."""
        for name in self._names():
            if name.startswith(_UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(self._path(name))

    def counts(self) -> tuple[int, int]:
        """Images of the plan, and those of finished parts."""
        done = self.finished()
        images = self._plan_column("images")
        return sum(images), sum(count for number, count in enumerate(images) if number in done)

    def failed(self) -> int:
        """Images of finished parts that have no result."""
        return sum(self._tally(number)["failed"] for number in self.finished())

    def pending_numbers(self) -> list[int]:
        """Of the parts that are not finished, in order."""
        return sorted(set(self._plan_column("number")) - self.finished())

    def pending(self) -> Iterator[Part]:
        """The parts that are not finished, in order."""
        with self._files.open(self._path(_PLAN)) as file, pyarrow.parquet.ParquetFile(file) as plan:
            for number in self.pending_numbers():
                yield _part(plan, number)

    def planned(self, number: int) -> Part:
        """The part ``number`` of the plan."""
        with self._files.open(self._path(_PLAN)) as file, pyarrow.parquet.ParquetFile(file) as plan:
            return _part(plan, number)

    def found(self, number: int) -> dict[str, int] | None:
        """``images`` and ``failed`` of part ``number``'s file; None where there is none."""
        return self._tally(number) if self._files.exists(self._path(_part_name(number))) else None

    def _tally(self, number: int) -> dict[str, int]:
        errors = self._column(self._path(_part_name(number)), "error")
        return {"images": len(errors), "failed": len(errors) - errors.null_count}

    def _plan_column(self, name: str) -> list[int]:
        return cast("list[int]", self._column(self._path(_PLAN), name).to_pylist())

    def _column(self, path: str, name: str) -> pyarrow.ChunkedArray:
        """Read in this thread: one of Arrow's that still holds a file of Python's when the program ends, aborts it."""
        with self._files.open(path) as file, pyarrow.parquet.ParquetFile(file, pre_buffer=False) as table:
            return table.read(columns=[name], use_threads=False)[name]

    def finished(self) -> set[int]:
        """Numbers of the finished parts."""
        names = (name for name in self._names() if name.startswith("part-") and name.endswith(".parquet"))
        return {int(name[len("part-") : -len(".parquet")]) for name in names}

    @contextlib.contextmanager
    def part(self, number: int, columns: pyarrow.Schema) -> Iterator[PartWriter]:
        """What writes part ``number``, which is there as a whole when the block ends, or not at all."""
        with self._writing(_part_name(number), columns) as file:
            writer = PartWriter(file, columns)
            yield writer
            writer.flush()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _names(self) -> set[str]:
        self._files.invalidate_cache()
        return {str(path).rpartition("/")[2] for path in self._files.ls(self._root, detail=False)}

    @contextlib.contextmanager
    def _writing(self, name: str, columns: pyarrow.Schema) -> Iterator[pyarrow.parquet.ParquetWriter]:
        with self._atomic(name) as file, pyarrow.parquet.ParquetWriter(file, columns, compression="zstd") as writer:
            yield writer

    @contextlib.contextmanager
    def _atomic(self, name: str) -> Iterator[Any]:
        """A file that appears when it is whole: by a rename here; to a store it is sent once it is.

        What fsspec opens for writing there is sent as far as it came when it is closed, or collected, on some stores.
        """
        path = self._path(name)
        if not isinstance(self._files, LocalFileSystem):
            with tempfile.NamedTemporaryFile(prefix="resnet-bulk-") as whole:
                yield whole
                whole.flush()
                self._files.put_file(whole.name, path)
            return
        unfinished = self._path(f"{_UNFINISHED}{name}-{uuid.uuid4().hex}")
        try:
            with open(unfinished, "wb") as file:  # noqa: PTH123 - a path as fsspec has it
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)  # noqa: PTH108
            raise


def _part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _part(plan: pyarrow.parquet.ParquetFile, number: int) -> Part:
    """Each part is a row group of its own, by its number."""
    return Part.model_validate(json.loads(plan.read_row_group(number, columns=["part"])["part"][0].as_py()))


def _json(model: BaseModel, indent: int | None = None) -> str:
    """As text of ASCII: names of files may be any bytes, which pydantic's own has no way to write."""
    return json.dumps(model.model_dump(), indent=indent)


class PartWriter:
    """Rows into a part's file, a thousand at a time."""

    def __init__(self, file: pyarrow.parquet.ParquetWriter, columns: pyarrow.Schema) -> None:
        self._file = file
        self._columns = columns
        self._rows: list[tuple[str, Row]] = []

    def write(self, source: str, row: Row) -> None:
        """Take ``row``, of an image of ``source``."""
        self._rows.append((source, row))
        if len(self._rows) >= _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._rows:
            self._file.write_table(table(self._rows, self._columns))
            self._rows = []


def table(rows: Sequence[tuple[str, Row]], columns: pyarrow.Schema) -> pyarrow.Table:
    """``rows`` and their sources as a table of ``columns``."""
    values: dict[str, list[Any]] = {
        "source": [_text(source) for source, _ in rows],
        "key": [_text(row.key) for _, row in rows],
        "label": [row.predictions[0].label if row.predictions else None for _, row in rows],
        "probability": [row.predictions[0].probability if row.predictions else None for _, row in rows],
        "predictions": [
            None
            if row.error
            else [{"label": p.label, "index": p.index, "probability": p.probability} for p in row.predictions]
            for _, row in rows
        ],
        "energy": [row.energy for _, row in rows],
        "width": [row.size and row.size[0] for _, row in rows],
        "height": [row.size and row.size[1] for _, row in rows],
        "error": [row.error and row.error.code for _, row in rows],
        "message": [row.error and row.error.message for _, row in rows],
        "embedding": [row.embedding for _, row in rows],
    }
    arrays = [pyarrow.array(values[field.name], field.type) for field in columns]
    return cast("pyarrow.Table", pyarrow.table(arrays, schema=columns))


def _text(key: str) -> str:
    """Without what is no UTF-8: names of files may be any bytes."""
    return os.fsencode(key).decode("utf-8", "replace")
