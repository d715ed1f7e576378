"""The OpenAPI document, made of the routes' operations.

It is of version 3.1 (https://spec.openapis.org/oas/v3.1.0), whose schemas are JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service import __version__
from service.errors import BadRequest, DeadlineExceeded, NotReady, ServiceError, ShuttingDown, Unauthorized
from service.http.operation import Access, Content, Operation, Schema
from service.http.routing import Route
from service.http.schemas import ErrorAnswer, ProbeError, ProtocolError

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]

COMMON_ERRORS: Final[tuple[type[ServiceError], ...]] = (BadRequest, ServiceError, DeadlineExceeded)
_LOADING_ERRORS: Final[tuple[type[ServiceError], ...]] = (NotReady, ShuttingDown)

_COMPONENT: Final = "#/components/schemas/{model}"
# pydantic leaves its own words where a bound comes after a validator.
_BOUNDS: Final = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_ABOUT: Final = """\
Images in, what a residual network sees in them out.

An unknown path answers 404 `not_found`, another method than a route takes 405 `method_not_allowed`; where there is GET
there is HEAD. Where the operator has set keys, all but the service's pages, health and metrics need one. Unknown or
repeated query parameters are refused. Every error has the form of `ErrorAnswer`.
"""
_TAGS: Final = {
    "images": "Images in, answers out.",
    "models": "What is served, and on what.",
    "jobs": "Many images, answered later.",
    "inference protocol": "The Open Inference Protocol, version 2.",
    "repository": "Models in and out while the service runs; for those who have the admin key.",
    "service": "The service itself: its pages, its state, its metrics.",
}
_PATH_PARAMETERS: Final = {
    "name": "The model's name, as in `/v1/models`.",
    "version": "The model's version.",
    "id": "The id that the service gave.",
}
_REQUEST_ID: Final = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "The request's id, for answers and logs. Taken over where it is at most 128 letters, digits and "
    "`._:/+=-`; otherwise the service makes one.",
    "schema": {"type": "string"},
}
_HEADERS: Final = {
    "X-Request-ID": {
        "description": "The request's id: the client's own, or one that the service made.",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    "Retry-After": {
        "description": "Seconds after which it is worth another try.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"description": "`Bearer`.", "required": True, "schema": {"type": "string"}},
}
_SECURITY: Final = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "A key that the service's operator gave you."},
    "apiKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
    "adminKey": {"type": "http", "scheme": "bearer", "description": "The key in `RESNET_ADMIN_KEY`."},
}
# A service whose operator sets no keys asks for none, so that one may do without.
_NEEDED: Final[dict[Access, list[Json]]] = {
    "open": [],
    "key": [{}, {"apiKey": []}, {"apiKeyHeader": []}],
    "admin": [{"adminKey": []}],
}


def document(routes: Iterable[Route], image_formats: Sequence[str]) -> Json:
    """The document of ``routes``, which take images of ``image_formats``, and of BentoML's probes."""
    routes = [route for route in routes if route.operation.documented]
    schemas = _Schemas((route.operation for route in routes), image_formats)
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    paths |= _probes(schemas)
    errors = {error for route in routes for error in _errors(route.operation)} | set(_LOADING_ERRORS)
    tags = dict.fromkeys(operation["tags"][0] for path in paths.values() for operation in path.values())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ResNet serving",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This service."}],
        "tags": [{"name": tag, "description": _TAGS.get(tag, tag.capitalize())} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.definitions.items())),
            "parameters": {"RequestId": _REQUEST_ID},
            "securitySchemes": _SECURITY,
            "headers": {name.replace("-", ""): header for name, header in _HEADERS.items()},
            "examples": {error.code: _error_example(error) for error in sorted(errors, key=lambda e: e.code)},
        },
    }


class _Schemas:
    """The pydantic models of all operations as components, and what refers to them."""

    def __init__(self, operations: Iterable[Operation], image_formats: Sequence[str]) -> None:
        self._image_types = [f"image/{name}" for name in image_formats]
        wanted: dict[tuple[type[BaseModel], Mode], None] = dict.fromkeys(
            (form, "serialization") for form in (ErrorAnswer, ProtocolError, ProbeError)
        )
        for operation in operations:
            contents = [(operation.body, "validation"), *((c, "serialization") for c in operation.answers.values())]
            wanted |= {(model, mode): None for content, mode in contents for model in _models(content)}  # type: ignore[misc]
        references, found = models_json_schema(list(wanted), ref_template=_COMPONENT)
        self._references: Mapping[Any, Json] = references
        self.definitions: Json = found.get("$defs", {})

    def reference(self, schema: Schema, mode: Mode) -> Json:
        return dict(self._references[schema, mode] if isinstance(schema, type) else schema)

    def content(self, content: Content, mode: Mode) -> Json:
        return {media_type: {"schema": self.reference(schema, mode)} for media_type, schema in content.items()}

    def body(self, content: Content) -> Json:
        """What may be sent; ``image/*`` stands for the formats that are taken, in a form's files, too."""
        described = self.content(content, "validation")
        if (image := described.pop("image/*", None)) is None:
            return described
        if (form := described.get("multipart/form-data")) is not None:
            named = form["schema"].get("properties", {})
            form["encoding"] = {name: {"contentType": ", ".join(self._image_types)} for name in named}
        return dict.fromkeys(self._image_types, image) | described

    def properties(self, model: type[BaseModel]) -> Json:
        """The fields of a ``Query``, as JSON Schemas by the names that clients use."""
        schema = model.model_json_schema(ref_template=_COMPONENT)
        self.definitions |= schema.get("$defs", {})
        properties: Json = schema.get("properties", {})
        return properties


def _models(content: Content) -> Iterator[type[BaseModel]]:
    return (schema for schema in content.values() if isinstance(schema, type))


def _operation(route: Route, schemas: _Schemas) -> Json:
    operation = route.operation
    described: Json = {
        "operationId": _identifier(route),
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.description:
        described["description"] = operation.description
    described["parameters"] = [*_parameters(route, schemas), {"$ref": "#/components/parameters/RequestId"}]
    if operation.body:
        described["requestBody"] = {"required": True, "content": schemas.body(operation.body)}
    described["responses"] = _responses(route, schemas)
    if needed := _NEEDED[operation.access]:
        described["security"] = needed
    return described


def _identifier(route: Route) -> str:
    """``get_v1_models_name`` for GET ``/v1/models/{name}``: a name for generated clients."""
    words = route.path.replace("{", "").replace("}", "").replace("-", "_").replace(".", "_").split("/")
    return "_".join([route.method.lower(), *filter(None, words)]) if any(words) else f"{route.method.lower()}_index"


def _parameters(route: Route, schemas: _Schemas) -> Iterator[Json]:
    for name in route.parameters:
        meaning = route.operation.path.get(name) or _PATH_PARAMETERS.get(name, name)
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "description": meaning, "schema": schema}
    if route.operation.query is None:
        return
    for name, field in schemas.properties(route.operation.query).items():
        schema = _parameter_schema(field)
        parameter = {"name": name, "in": "query", "description": field.get("description", ""), "schema": schema}
        if schema.get("type") == "array":  # a,b and not name=a&name=b
            parameter |= {"style": "form", "explode": False}
        yield parameter


def _parameter_schema(field: Json) -> Json:
    """Without what only Python has: a query has no null, an absent parameter is just absent."""
    schema: Json = {key: value for key, value in field.items() if key not in ("title", "description", "anyOf")}
    if schema.get("default", ...) is None:
        del schema["default"]
    options = [option for option in field.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        schema |= options[0]
    elif options:
        schema["anyOf"] = options
    return {_BOUNDS.get(key, key): value for key, value in schema.items()}


def _errors(operation: Operation) -> set[type[ServiceError]]:
    loading = _LOADING_ERRORS if operation.needs_models else ()
    keyed = (Unauthorized,) if operation.access == "key" else ()
    return {*COMMON_ERRORS, *loading, *keyed, *operation.errors}


def _responses(route: Route, schemas: _Schemas) -> Json:
    operation = route.operation
    found: dict[int, Json] = {}
    for status, content in operation.answers.items():
        described = _response(_meaning(status, content), schemas.content(content, "serialization"))
        described["headers"] |= {
            name: {"description": meaning, "required": True, "schema": {"type": "string"}}
            for name, meaning in operation.headers.get(status, {}).items()
        }
        found[status] = described
    if examples := {name: {"value": value} for name, value in operation.examples.items()}:
        good = next(found[status]["content"] for status in sorted(found) if "content" in found[status])
        good.get("application/json", next(iter(good.values())))["examples"] = examples
    by_status: dict[int, list[type[ServiceError]]] = {}
    for error in sorted(_errors(operation), key=lambda e: e.code):
        by_status.setdefault(error.status, []).append(error)
    protocol = route.path == "/v2" or route.path.startswith("/v2/")
    for status, errors in by_status.items():
        if status not in found:
            form = schemas.reference(ProtocolError if protocol else ErrorAnswer, "serialization")
            found[status] = _error_response(errors, form, coded=not protocol)
    return {str(status): found[status] for status in sorted(found)}


def _response(description: str, content: Json, *headers: str) -> Json:
    names = ["X-Request-ID", *headers]
    described: Json = {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name.replace('-', '')}"} for name in names},
    }
    return described | ({"content": content} if content else {})


def _meaning(status: int, content: Content) -> str:
    documented = (model.__doc__ for model in _models(content))
    return next((text.strip() for text in documented if text), HTTPStatus(status).phrase)


def _error_response(errors: Sequence[type[ServiceError]], form: Json, *, coded: bool) -> Json:
    """What ``errors`` of one status answer; ``coded`` where ``form`` has their codes."""
    codes = [error.code for error in errors]
    content: Json = {"schema": form}
    if coded:
        content["schema"] |= {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
        content["examples"] = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
    headers = ["Retry-After"] if all(error.retry_after_s is not None for error in errors) else []
    headers += ["WWW-Authenticate"] if errors[0].status == HTTPStatus.UNAUTHORIZED else []
    meaning = " ".join(f"`{error.code}`: {_when(error)}" for error in errors)
    return _response(meaning, {"application/json": content}, *headers)


def _when(error: type[ServiceError]) -> str:
    if error is ServiceError:
        return "A fault of the service; its log names the request id."
    return " ".join((error.__doc__ or HTTPStatus(error.status).phrase).split())


def _error_example(error: type[ServiceError]) -> Json:
    value = {"error": {"code": error.code, "message": _when(error).rstrip(".")}, "request_id": "7858b0c7da174672"}
    return {"summary": f"{error.status} {HTTPStatus(error.status).phrase}", "value": value}


def _probes(schemas: _Schemas) -> dict[str, Json]:
    """BentoML's own routes that orchestrators ask."""
    fine = {"description": "Yes.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    not_ready = {
        "description": "Not yet, or no more: models are loading, or the service stops.",
        "headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}},
        "content": {"application/json": {"schema": schemas.reference(ProbeError, "serialization")}},
    }
    return {
        "/livez": {
            "get": {
                "operationId": "get_livez",
                "tags": ["service"],
                "summary": "Whether the process lives",
                "responses": {"200": fine},
            }
        },
        "/readyz": {
            "get": {
                "operationId": "get_readyz",
                "tags": ["service"],
                "summary": "Whether every worker has loaded and warmed its models",
                "responses": {"200": fine, "503": not_ready},
            }
        },
    }
