from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, ValidationError

from service.http import classify, embed, explain
from service.http.routing import Route
from service.http.schemas import Classified, Explained, ImagesBody
from service.metrics import Metrics
from service.process.workers import Workers
from service.runtime import Runtime
from tests.service.conftest import some_settings

JSON = "application/json"


@pytest.fixture
def routes(tiny_root: Path) -> list[Route]:
    runtime = Runtime(some_settings(tiny_root), Metrics(None), Workers(None, 1))
    return [route for module in (classify, embed, explain) for route in module.routes(runtime)]


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object's schema in ``schema``."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)


def test_every_example_is_as_its_schema_says(routes: list[Route]) -> None:
    checked = 0
    for route in routes:
        model = route.operation.answers[200][JSON]
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for example in route.operation.examples.values():
            model.model_validate_json(orjson.dumps(example), strict=True)
            checked += 1
    assert checked >= 5


def test_answers_have_the_fields_named_and_no_others(routes: list[Route]) -> None:
    for route in routes:
        model = route.operation.answers[200][JSON]
        assert isinstance(model, type)
        found = list(objects(model.model_json_schema(mode="serialization")))
        assert found
        assert all(schema["additionalProperties"] is False for schema in found)


def test_parts_may_be_absent_but_not_null() -> None:
    result = Classified.model_json_schema()["$defs"]["ImageResult"]
    assert "required" not in result
    assert result["minProperties"] == 1
    for name, schema in result["properties"].items():
        assert "default" not in schema, name
        assert "null" not in str(schema), name
    scores = Classified.model_json_schema()["$defs"]["Scores"]
    assert "null" in str(scores["properties"]["out_of_distribution"])


def test_a_heatmaps_mistakes_are_seen() -> None:
    example: Any = orjson.loads(orjson.dumps(explain._EXAMPLE))
    Explained.model_validate(example)
    example["results"][0]["heatmap"]["box"] = [1, 2, 3]
    with pytest.raises(ValidationError):
        Explained.model_validate(example)


def test_the_body_of_images() -> None:
    ImagesBody.model_validate({"images": ["AAAA"]})
    for wrong in ({}, {"images": []}, {"images": ["AAAA"], "top_k": 1}):
        with pytest.raises(ValidationError):
            ImagesBody.model_validate(wrong)
