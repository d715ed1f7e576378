"""What a route takes and answers: the parts of the OpenAPI document, beside the code they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from service.errors import ServiceError

Schema = type[BaseModel] | Mapping[str, Any]
"""A pydantic model, or a JSON Schema as it is."""

Content = Mapping[str, Schema]
"""By media type."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path (https://spec.openapis.org/oas/v3.1.0#operation-object).

    query   -- a ``Query``; its fields are the parameters, their descriptions and bounds.
    body    -- what may be sent, by media type; empty where nothing is read.
    answers -- what a status answers with, by media type; an empty one has no body.
    errors  -- which errors there are besides those that every route may give.
    examples -- of the JSON answer where all goes well, by a name that says what each shows.
    documented -- False for what is no part of the API: the files of the web pages.
    """

    summary: str
    tag: str
    description: str = ""
    query: type[BaseModel] | None = None
    body: Content = field(default_factory=dict)
    answers: Mapping[int, Content] = field(default_factory=dict)
    errors: tuple[type[ServiceError], ...] = ()
    examples: Mapping[str, Any] = field(default_factory=dict)
    documented: bool = True
