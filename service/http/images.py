"""What the routes that take images have in common: how they are asked, and how results become an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from service.errors import (
    BadImage,
    BadRequest,
    BodyTooLarge,
    ImageError,
    ImageTooLarge,
    InferenceFailed,
    KeyBusy,
    KeyRate,
    NotAnImage,
    Overloaded,
    SlowClient,
    TooManyImages,
    UnknownModel,
    UnsupportedEncoding,
)
from service.http.operation import Content
from service.http.routing import Call, Query
from service.http.schemas import BINARY, ImagesBody
from service.inference.pipeline import Pipeline
from service.inference.readings import Result

JSON: Final = "application/json"

IMAGES_BODY: Final[Content] = {
    "image/*": BINARY,
    "application/octet-stream": BINARY,
    "multipart/form-data": {
        "type": "object",
        "properties": {"image": {"type": "array", "items": BINARY, "minItems": 1}},
        "required": ["image"],
        "additionalProperties": False,  # files by other names are taken, too; but nobody need use them
    },
    JSON: ImagesBody,
}
IMAGES_ERRORS: Final = (
    BadRequest,
    UnknownModel,
    SlowClient,
    BodyTooLarge,
    UnsupportedEncoding,
    TooManyImages,
    ImageTooLarge,
    NotAnImage,
    BadImage,
    Overloaded,
    KeyRate,
    KeyBusy,
    InferenceFailed,
)


def _digits(value: object) -> object:
    """A whole number as people write it: no sign, no blanks."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 6):
        raise ValueError("must be a whole number from 1")
    return value


TopK = Annotated[int, Field(ge=1), BeforeValidator(_digits)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ModelQuery(Query):
    """Which model answers."""

    model: str | None = Field(None, description="The model's name, as in `/v1/models`; the default one if absent.")
    version: str | None = Field(None, description="Its version; if absent, the one that stands for the model.")


def answer_of(call: Call, pipeline: Pipeline, found: Sequence[Result | ImageError], **others: Any) -> Result:
    """The JSON answer of ``results``; a bad image has its error in its place."""
    manifest = pipeline.stored.manifest
    return {
        "model": {"name": manifest.name, "version": manifest.version},
        "results": [result.as_json() if isinstance(result, ImageError) else result for result in found],
        **others,
        "request_id": call.request_id,
    }
