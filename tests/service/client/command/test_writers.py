from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet
import pytest

from service.client.command import parquet
from service.client.command.asking import Outcome, failed
from service.client.command.files import Source
from service.client.command.parquet import ParquetWriter
from service.client.command.records import EMBEDDINGS, EXPLANATIONS, PREDICTIONS, Layout
from service.client.command.writers import CsvWriter, JsonWriter, NdjsonWriter, TableWriter
from service.client.results import Classification, Embedding, Explanation, Heatmap, Model, Prediction, Problem
from tests.service.client.conftest import HEATMAP, as_lines

MODEL = Model(name="tiny", version="1")
TWO = [Prediction(label="ship", index=8, probability=0.75), Prediction(label='a "b", c', index=1, probability=0.125)]
GOOD = Outcome(Source("a.jpg", "a.jpg"), Classification(model=MODEL, predictions=TWO), {})
BAD = failed(Source("b.jpg", "b.jpg"), Problem(code="bad_image", message="cut\x1b[31m off"))
ABSTAINED = Outcome(Source("c.jpg", "c.jpg"), Classification(model=MODEL, predictions=[], abstained=True), {})
VECTOR = Outcome(Source("a.jpg", "a.jpg"), Embedding(model=MODEL, embedding=[0.5, -1.25]), {})


def written(writer: Any, file: io.BytesIO, outcomes: Sequence[Outcome]) -> bytes:
    for outcome in outcomes:
        writer.write([outcome])
    writer.close()
    return file.getvalue()


def as_csv(layout: Layout, *outcomes: Outcome) -> list[dict[str, str]]:
    file = io.BytesIO()
    text = written(CsvWriter(file, layout), file, outcomes).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_has_a_row_for_each_file_and_rank() -> None:
    first, second, bad, abstained = as_csv(PREDICTIONS, GOOD, BAD, ABSTAINED)
    assert first == {
        "file": "a.jpg",
        "model": "tiny",
        "version": "1",
        "rank": "1",
        "label": "ship",
        "index": "8",
        "probability": "0.75",
        "error": "",
    }
    assert (second["rank"], second["label"]) == ("2", 'a "b", c')
    assert (bad["file"], bad["label"], bad["error"]) == ("b.jpg", "", "bad_image: cut\x1b[31m off")
    assert (abstained["file"], abstained["label"], abstained["error"]) == ("c.jpg", "", "")


def test_csv_of_embeddings() -> None:
    (row,) = as_csv(EMBEDDINGS, VECTOR)
    assert json.loads(row["embedding"]) == [0.5, -1.25]
    assert row["dimensions"] == "2"


def test_csv_of_explanations() -> None:
    result = Explanation(model=MODEL, heatmap=Heatmap.model_validate_json(json.dumps(HEATMAP)))
    (row,) = as_csv(EXPLANATIONS, Outcome(Source("a.jpg", "a.jpg"), result, {"saved": "maps/a.png"}))
    assert (row["label"], row["logit"], row["right"], row["saved"]) == ("ship", "2.75", "32.0", "maps/a.png")


def test_ndjson_is_the_apis_result() -> None:
    file = io.BytesIO()
    first, bad, abstained = as_lines(written(NdjsonWriter(file), file, [GOOD, BAD, ABSTAINED]).decode())
    assert first == {
        "file": "a.jpg",
        "model": {"name": "tiny", "version": "1"},
        "predictions": [prediction.model_dump() for prediction in TWO],
    }
    assert bad == {"file": "b.jpg", "error": {"code": "bad_image", "message": "cut\x1b[31m off"}}
    assert abstained["abstained"] is True


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_is_one_list(count: int) -> None:
    file = io.BytesIO()
    assert len(json.loads(written(JsonWriter(file), file, [GOOD] * count))) == count


def test_results_are_written_as_they_come() -> None:
    for make in (lambda file: CsvWriter(file, PREDICTIONS), NdjsonWriter, JsonWriter):
        file = io.BytesIO()
        writer = make(file)
        writer.write([GOOD])
        assert b"ship" in file.getvalue()


def table(layout: Layout, *outcomes: Outcome, width: int = 80) -> list[str]:
    file = io.BytesIO()
    names = [outcome.source.name for outcome in outcomes]
    return written(TableWriter(file, layout, names, width), file, outcomes).decode().splitlines()


def test_a_table() -> None:
    assert table(PREDICTIONS, GOOD, BAD) == [
        "file          rank  label                     probability  error",
        "a.jpg            1  ship                           0.7500",
        'a.jpg            2  a "b", c                       0.1250',
        "b.jpg                                                      bad_image: cut\ufffd[31m off",
    ]


def test_a_table_is_as_wide_as_its_files_need_and_has_room_for() -> None:
    long = Outcome(Source("p/" * 100 + "a.jpg", "a.jpg"), GOOD.result, {})
    _, line, *_ = table(PREDICTIONS, long)
    assert line.startswith("p/p/")
    assert "…" in line
    assert len(line) <= 80
    wide = Outcome(Source("船舶.jpg", "x"), GOOD.result, {})
    lines = table(PREDICTIONS, wide, GOOD)
    assert lines[1].index("ship") + 2 == lines[3].index("ship")


def test_parquet_has_types() -> None:
    file = io.BytesIO()
    found = pyarrow.parquet.read_table(
        io.BytesIO(written(ParquetWriter(file, PREDICTIONS), file, [GOOD, BAD, ABSTAINED]))
    )
    assert {field.name: str(field.type) for field in found.schema} == {
        "file": "string",
        "model": "string",
        "version": "string",
        "rank": "int64",
        "label": "string",
        "index": "int64",
        "probability": "double",
        "error": "string",
    }
    first, _, bad, _ = found.to_pylist()
    assert (first["label"], first["probability"], first["error"]) == ("ship", 0.75, None)
    assert bad["error"].startswith("bad_image")


def test_parquet_is_written_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_NUMBERS", 4)
    file = io.BytesIO()
    data = written(ParquetWriter(file, EMBEDDINGS), file, [VECTOR] * 5)
    read = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    assert read.num_row_groups == 3
    table = read.read()
    assert str(table.schema.field("embedding").type) == "list<element: float>"
    assert table.column("embedding").to_pylist() == [[0.5, -1.25]] * 5


def test_parquet_without_a_result_is_still_a_table() -> None:
    file = io.BytesIO()
    assert pyarrow.parquet.read_table(io.BytesIO(written(ParquetWriter(file, PREDICTIONS), file, []))).num_rows == 0
