"""The forms of answers about images, for the API's description. Answers themselves are plain dicts: that is faster."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

T = TypeVar("T")


def _no_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


Absent = Annotated[T | SkipJsonSchema[None], Field(default=None, json_schema_extra=_no_default)]
"""A field that may be left out, but is never null."""


class Part(BaseModel):
    """A part of an answer, that has these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class ModelReference(Part):
    """The model that answered."""

    name: str
    version: str


class ErrorBody(Part):
    """What is wrong: `code` for programs, `message` for people."""

    code: str
    message: str


class ErrorAnswer(Part):
    """The form of every error."""

    error: ErrorBody
    request_id: str


class ProtocolError(Part):
    """The form of errors below `/v2`, which the Open Inference Protocol prescribes."""

    error: str


class ProbeError(Part):
    """Why the service is not ready."""

    error: ErrorBody


class Failed(Part):
    """An image that could not be used, in the place of its result."""

    error: ErrorBody


class PredictionBody(Part):
    """A class, with its probability at the model's calibrated temperature."""

    label: str
    index: int = Field(ge=0)
    probability: float = Field(ge=0, le=1)


class ImageSize(Part):
    """Of the upright image, in pixels."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)


class HeatmapBody(Part):
    """The exact class activation map of one class: the mean of `grid` plus `bias` is `logit`."""

    label: str
    index: int = Field(ge=0)
    logit: float
    bias: float = Field(description="What the class has on any image.")
    height: int = Field(ge=1, description="Rows of the grid.")
    width: int = Field(ge=1, description="Columns of the grid.")
    grid: list[list[float]] = Field(description="What each part of `box` adds to the logit, times the grid's cells.")
    box: tuple[float, float, float, float] = Field(
        description="The part of the upright image that the network saw: left, upper, right, lower, in its pixels."
    )
    image: ImageSize


class Scores(Part):
    """How far the image is from those that the network knows."""

    max_logit: float
    energy: float = Field(description="logsumexp of the logits: larger for images like those of the training.")
    out_of_distribution: bool | None = Field(
        description="Whether the energy is below the model's calibrated threshold; null where it has none."
    )


class TimingsBody(Part):
    """Seconds: reading the body (of the whole request), decoding, waiting for a slot, inference (of the batch)."""

    read: float = Field(ge=0)
    decode: float = Field(ge=0)
    queue: float = Field(ge=0)
    infer: float = Field(ge=0)


class ImageResult(Part):
    """What was asked for of one image."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    predictions: Absent[list[PredictionBody]]
    embedding: Absent[list[float]]
    heatmap: Absent[HeatmapBody]
    scores: Absent[Scores]
    timings: Absent[TimingsBody]
    abstained: Absent[bool]


class Classified(Part):
    """One result an image, in the order they were sent."""

    model: ModelReference
    results: list[ImageResult | Failed]
    request_id: str


class Embedded(Part):
    embedding: list[float]


class Embeddings(Part):
    """One embedding an image, in the order they were sent; `dimensions` is the length of each."""

    model: ModelReference
    results: list[Embedded | Failed]
    dimensions: int = Field(ge=1)
    request_id: str


class Explanation(Part):
    heatmap: HeatmapBody
    predictions: list[PredictionBody]


class Explained(Part):
    """One heatmap an image, in the order they were sent."""

    model: ModelReference
    results: list[Explanation | Failed]
    request_id: str


class ImagesBody(BaseModel):
    """Images in JSON."""

    model_config = ConfigDict(extra="forbid")

    images: list[Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]] = Field(
        min_length=1, description="Image files in base64 (RFC 4648, section 4), padded, without a `data:` prefix."
    )


BINARY: Final = {"type": "string", "format": "binary"}
