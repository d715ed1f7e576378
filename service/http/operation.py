"""What a route takes and answers: the parts of the OpenAPI document, beside the code they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from service.errors import ServiceError

Schema = type[BaseModel] | Mapping[str, Any]
"""A pydantic model, or a JSON Schema as it is."""

Content = Mapping[str, Schema]
"""By media type."""

Access = Literal["key", "open", "admin"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path (https://spec.openapis.org/oas/v3.1.0#operation-object).

    query   -- a ``Query``; its fields are the parameters, their descriptions and bounds.
    body    -- what may be sent, by media type; empty where nothing is read.
    answers -- what a status answers with, by media type; an empty one has no body.
    errors  -- which errors there are besides those that every route may give (``openapi.COMMON_ERRORS``).
    examples -- of the JSON answer where all goes well, by a name that says what each shows.
    path    -- what the parameters in the route's path mean, by name, where it is not what they always mean.
    headers -- what headers an answer has besides those that all have: descriptions by name, by status.
    needs_models -- False where it answers while the models load, too, and so never 503.
    documented -- False for what is no part of the API: the files of the web pages.
    access -- who may ask, where there are keys: whoever has one, anybody, or who has the admin key.
    """

    summary: str
    tag: str
    description: str = ""
    query: type[BaseModel] | None = None
    body: Content = field(default_factory=dict)
    answers: Mapping[int, Content] = field(default_factory=dict)
    errors: tuple[type[ServiceError], ...] = ()
    examples: Mapping[str, Any] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    needs_models: bool = True
    documented: bool = True
    access: Access = "key"
