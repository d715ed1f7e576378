"""The document against OpenAPI 3.1's own schema, and against the routes it describes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
from pydantic import BaseModel, Field
from schemathesis.specs.openapi.definitions import OPENAPI_31

import service
from service.errors import BadImage, ImageTooLarge, Overloaded, ServiceError, Unauthorized
from service.http.openapi import document
from service.http.operation import Operation
from service.http.routing import Call, Query, Route
from tests.service.http.conftest import answer

# OPENAPI_31 is https://spec.openapis.org/oas/v3.1/schema/2022-10-07, as schemathesis brings it. It leaves schemas
# open; these are the words of JSON Schema 2020-12 and OpenAPI that schemas here may have.
FORMATS = ("jpeg", "png")
_KEYWORDS = {
    *("type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems", "anyOf"),
    *("oneOf", "allOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"),
    *("pattern", "minItems", "maxItems", "minProperties", "maxProperties", "uniqueItems", "multipleOf", "format"),
    *("title", "description", "default", "examples", "$ref", "contentEncoding", "contentMediaType", "discriminator"),
    *("deprecated", "readOnly", "writeOnly", "patternProperties", "propertyNames", "unevaluatedProperties", "$comment"),
}


@pytest.fixture
def served(tiny_root: Path) -> dict[str, Any]:
    """The document of the whole API."""
    response = answer(tiny_root, "GET", "/openapi.json")
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()
    return found


def operations(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    return ((path, method, found) for path, methods in spec["paths"].items() for method, found in methods.items())


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema below ``node``, a part of the document."""
    if isinstance(node, dict):
        if isinstance(node.get("schema"), dict):
            yield from below(node["schema"])
        for key, inner in node.items():
            if key not in ("examples", "example", "value"):
                yield from schemas(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from schemas(inner)


def below(schema: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(schema, dict):
        return
    yield schema
    for key in ("properties", "patternProperties"):
        for inner in schema.get(key, {}).values():
            yield from below(inner)
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for inner in schema.get(key, ()):
            yield from below(inner)
    for key in ("items", "additionalProperties", "propertyNames"):
        yield from below(schema.get(key))


def test_the_document_is_openapi_3_1(served: dict[str, Any]) -> None:
    faults = [
        f"{error.instance_path}: {error.message}"
        for error in jsonschema_rs.validator_for(OPENAPI_31).iter_errors(served)
    ]
    assert not faults


def test_every_schema_is_json_schema_without_words_of_another_language(served: dict[str, Any]) -> None:
    found = [*schemas(served["paths"]), *(s for c in served["components"]["schemas"].values() for s in below(c))]
    assert found
    for schema in found:
        assert set(schema) <= _KEYWORDS, schema
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_every_reference_leads_somewhere_and_every_component_is_used(served: dict[str, Any]) -> None:
    used = set(re.findall(r'"\$ref": "#/components/(\w+)/(\w+)"', json.dumps(served)))
    there = {(kind, name) for kind, named in served["components"].items() for name in named}
    assert used <= there
    unused = {name for kind, name in there - used if kind not in ("examples", "securitySchemes")}
    assert unused <= {"ProtocolError", "WWWAuthenticate"}  # of routes that need not be there


def test_every_example_is_of_its_schema(served: dict[str, Any]) -> None:
    checked = 0
    for path, method, operation in operations(served):
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                schema = {**content["schema"], "components": served["components"]}
                validator = jsonschema_rs.validator_for(schema)
                for name, example in content.get("examples", {}).items():
                    found = (
                        served["components"]["examples"][example["$ref"].rsplit("/", 1)[1]]
                        if "$ref" in example
                        else example
                    )
                    faults = [error.message for error in validator.iter_errors(found["value"])]
                    assert not faults, (method, path, status, name)
                    checked += 1
    assert checked > 10


def test_every_operation_is_complete(served: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(served)]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in served["tags"]}
    for path, method, operation in operations(served):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert set(operation["tags"]) <= tags, where
        assert any(status < "300" for status in operation["responses"]), where
        assert all(
            parameter.get("description") or "$ref" in parameter for parameter in operation.get("parameters", ())
        ), where
        declared = {p["name"] for p in operation.get("parameters", ()) if p.get("in") == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), where


def test_the_version_is_the_projects() -> None:
    project = (Path(service.__file__).parents[1] / "pyproject.toml").read_text()
    assert 'version = { attr = "service.__version__" }' in project
    assert document([], FORMATS)["info"]["version"] == service.__version__


# Of an API made for the purpose


class _Colour(Query):
    shade: Annotated[int, Field(ge=1, le=9)] | None = Field(None, description="How dark.")
    kind: Literal["warm", "cold"] = Field("warm", description="Which.")
    named: str | None = Field(None, alias="class", description="By name.")
    several: tuple[int, ...] = Field((), description="More.")


class _Sent(BaseModel):
    """What is sent."""

    names: list[str] = Field(min_length=1)


class _Got(BaseModel):
    """What comes back."""

    count: int = 0


async def _nothing(call: Call) -> Any:
    raise AssertionError(call)


def described(operation: Operation, method: str = "POST", path: str = "/v1/{name}/colours") -> dict[str, Any]:
    found: dict[str, Any] = document([Route(method, path, _nothing, operation)], FORMATS)["paths"][path][method.lower()]
    return found


def test_a_query_becomes_parameters() -> None:
    operation = described(Operation("Colours", "images", query=_Colour, path={"name": "Whose."}))
    assert operation["operationId"] == "post_v1_name_colours"
    path, *query, request_id = operation["parameters"]
    assert path == {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "Whose.",
        "schema": {"type": "string", "minLength": 1},
    }
    assert {p["name"]: (p["description"], p["schema"]) for p in query} == {
        "shade": ("How dark.", {"type": "integer", "minimum": 1, "maximum": 9}),
        "kind": ("Which.", {"type": "string", "enum": ["warm", "cold"], "default": "warm"}),
        "class": ("By name.", {"type": "string"}),
        "several": ("More.", {"type": "array", "items": {"type": "integer"}, "default": []}),
    }
    assert [p["name"] for p in query if p.get("explode") is False] == ["several"]
    assert request_id == {"$ref": "#/components/parameters/RequestId"}


def test_bodies_and_answers_come_by_media_type() -> None:
    png = {"type": "string", "format": "binary"}
    operation = described(
        Operation(
            "Colours",
            "images",
            body={"application/json": _Sent, "image/png": png},
            answers={202: {"application/json": _Got, "image/png": png}, 204: {}},
            headers={202: {"Location": "Where it is."}},
            examples={"one": {"count": 1}},
        )
    )
    assert operation["requestBody"]["required"]
    assert operation["requestBody"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/_Sent"}},
        "image/png": {"schema": png},
    }
    accepted = operation["responses"]["202"]
    assert accepted["description"] == "What comes back."
    assert accepted["headers"]["Location"]["description"] == "Where it is."
    assert accepted["content"] == {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/_Got"},
            "examples": {"one": {"value": {"count": 1}}},
        },
        "image/png": {"schema": png},
    }
    assert "content" not in operation["responses"]["204"]


def test_images_are_of_the_formats_that_are_taken(tiny_root: Path) -> None:
    png = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"image": {"type": "array", "items": png}}}
    operation = described(Operation("Colours", "images", body={"image/*": png, "multipart/form-data": form}))
    assert operation["requestBody"]["content"] == {
        "image/jpeg": {"schema": png},
        "image/png": {"schema": png},
        "multipart/form-data": {"schema": form, "encoding": {"image": {"contentType": "image/jpeg, image/png"}}},
    }
    spec = answer(tiny_root, "GET", "/openapi.json", environ={"image_formats": "tiff,bmp"}).json()
    taken = spec["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    assert [kind for kind in taken if kind.startswith("image/")] == ["image/tiff", "image/bmp"]


def codes(operation: dict[str, Any]) -> dict[str, list[str]]:
    """The codes of the errors, by status."""
    return {
        status: response["content"]["application/json"]["schema"]["properties"]["error"]["properties"]["code"]["enum"]
        for status, response in operation["responses"].items()
        if status >= "400"
    }


def test_errors_come_by_status_with_their_codes() -> None:
    operation = described(
        Operation("Colours", "images", answers={200: {}}, errors=(Overloaded, ImageTooLarge, BadImage))
    )
    assert codes(operation) == {
        "400": ["bad_request"],
        "401": ["unauthorized"],
        "413": ["image_too_large"],
        "422": ["bad_image"],
        "429": ["overloaded"],
        "500": ["internal"],
        "503": ["not_ready", "shutting_down"],
        "504": ["deadline_exceeded"],
    }
    with_retry = {status for status, r in operation["responses"].items() if "Retry-After" in r["headers"]}
    assert with_retry == {"429", "503"}
    assert "503" not in codes(described(Operation("Colours", "images", answers={200: {}}, needs_models=False)))


def test_examples_of_an_answer_that_is_no_json_stand_with_it() -> None:
    lines = {"application/x-ndjson": {"type": "string"}}
    operation = described(Operation("Colours", "jobs", answers={202: {}, 200: lines}, examples={"two": "1\n2\n"}))
    assert operation["responses"]["200"]["content"]["application/x-ndjson"]["examples"] == {"two": {"value": "1\n2\n"}}


def test_errors_of_the_inference_protocol_have_its_form() -> None:
    operation = described(Operation("Server", "protocol", answers={200: {}}), "GET", "/v2/health/live")
    assert operation["responses"]["400"]["content"]["application/json"] == {
        "schema": {"$ref": "#/components/schemas/ProtocolError"}
    }


def test_who_may_ask_is_said() -> None:
    admin = described(Operation("Load", "repository", answers={200: {}}, errors=(Unauthorized,), access="admin"))
    assert admin["security"] == [{"adminKey": []}]
    keyed = described(Operation("Colours", "images", answers={200: {}}))
    assert keyed["security"] == [{}, {"apiKey": []}, {"apiKeyHeader": []}]
    for operation in (admin, keyed):
        assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]
    for_all = described(Operation("Colours", "images", answers={200: {}}, access="open"))
    assert "security" not in for_all
    assert "401" not in for_all["responses"]
    schemes = document([Route("GET", "/x", _nothing, Operation("X", "images"))], FORMATS)["components"]
    assert {name for part in keyed["security"] for name in part} < set(schemes["securitySchemes"])


def test_what_is_no_part_of_the_api_is_not_in_the_document() -> None:
    hidden = Operation("A file", "service", documented=False)
    assert set(document([Route("GET", "/web/{name}", _nothing, hidden)], FORMATS)["paths"]) == {"/livez", "/readyz"}


def test_every_error_says_when_it_comes() -> None:
    def every(kind: type[ServiceError]) -> Iterator[type[ServiceError]]:
        yield from (found for sub in kind.__subclasses__() for found in (sub, *every(sub)))

    assert [
        kind.__name__ for kind in every(ServiceError) if kind.__module__ == "service.errors" and not kind.__doc__
    ] == []
