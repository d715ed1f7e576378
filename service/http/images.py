"""``/v1/classify``: images in, what the network sees in them out."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, Field

from service.errors import (
    BadImage,
    BadRequest,
    BodyTooLarge,
    ImageError,
    ImageTooLarge,
    InferenceFailed,
    NotAnImage,
    Overloaded,
    TooManyImages,
    UnknownModel,
)
from service.http.answers import Answer, json_answer
from service.http.intake import admitted
from service.http.operation import Content, Operation
from service.http.routing import Call, Query, Route
from service.pipeline import Pipeline
from service.postprocess import Prediction
from service.runtime import Runtime

DEFAULT_TOP_K: Final = 5

BINARY: Final = {"type": "string", "format": "binary"}
IMAGES_BODY: Final[Content] = {
    "image/*": BINARY,
    "application/octet-stream": BINARY,
    "multipart/form-data": {
        "type": "object",
        "properties": {"image": {"type": "array", "items": BINARY}},
    },
}
IMAGES_ERRORS: Final = (
    BadRequest,
    UnknownModel,
    BodyTooLarge,
    TooManyImages,
    ImageTooLarge,
    NotAnImage,
    BadImage,
    Overloaded,
    InferenceFailed,
)


def _digits(value: object) -> object:
    """A whole number as people write it: no sign, no blanks."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 6):
        raise ValueError("must be a whole number from 1")
    return value


class ModelQuery(Query):
    """Which model answers."""

    model: str | None = Field(None, description="The model's name, as in `/v1/models`; the default one if absent.")
    version: str | None = Field(None, description="Its version; if absent, the one that stands for the model.")


class ClassifyQuery(ModelQuery):
    top_k: Annotated[int, BeforeValidator(_digits), Field(ge=1)] | None = Field(
        None, description="How many classes to answer, from 1 to all; 5 if absent, or all where there are fewer."
    )


class ModelReference(BaseModel):
    """The model that answered."""

    name: str
    version: str


class ErrorBody(BaseModel):
    """What is wrong: `code` for programs, `message` for people."""

    code: str
    message: str


class PredictionBody(BaseModel):
    label: str
    index: int = Field(ge=0)
    probability: float = Field(ge=0, le=1)


class ImageResult(BaseModel):
    """One image's predictions, or what is wrong with it."""

    predictions: list[PredictionBody] | None = None
    error: ErrorBody | None = None


class Classified(BaseModel):
    """One result an image, in the order they were sent."""

    model: ModelReference
    results: list[ImageResult]
    request_id: str


class _Images:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def classify(self, call: Call) -> Answer:
        query = call.query(ClassifyQuery)
        with self._runtime.use(query.model, query.version) as pipeline:
            manifest = pipeline.stored.manifest
            call.model, call.version = manifest.name, manifest.version
            read = pipeline.top(_top_k(query.top_k, pipeline))
            async with admitted(self._runtime, call) as images:
                results: list[list[Prediction] | ImageError]
                if len(images) == 1:
                    results = [await pipeline.run(images[0], read, call.deadline)]
                else:
                    results = await pipeline.run_many(images, read, call.deadline)
        return json_answer(
            {
                "model": {"name": manifest.name, "version": manifest.version},
                "results": [_result(result) for result in results],
                "request_id": call.request_id,
            }
        )


def routes(runtime: Runtime) -> list[Route]:
    """The routes of this module."""
    images = _Images(runtime)
    classify = Operation(
        "Classify images",
        "images",
        "One image as the body, or one or many as files of a form.",
        query=ClassifyQuery,
        body=IMAGES_BODY,
        answers={200: {"application/json": Classified}},
        errors=IMAGES_ERRORS,
    )
    return [Route("POST", "/v1/classify", images.classify, classify)]


def _top_k(wanted: int | None, pipeline: Pipeline) -> int:
    classes = len(pipeline.labels)
    if wanted is None:
        return min(DEFAULT_TOP_K, classes)
    if wanted > classes:
        raise BadRequest(f"top_k: must be a whole number from 1 to {classes}")
    return wanted


def _result(result: list[Prediction] | ImageError) -> dict[str, Any]:
    return result.as_json() if isinstance(result, ImageError) else {"predictions": result}
