"""``/v1/embed``: images in, their embeddings out, as JSON or as plain numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from pydantic import Field

from service.errors import ImageError, MissingOutput, NotAcceptable
from service.http.accept import choose
from service.http.answers import Answer, binary_answer, json_answer
from service.http.images import IMAGES_BODY, IMAGES_ERRORS, JSON, ModelQuery, answer_of
from service.http.intake import admitted
from service.http.operation import Operation
from service.http.routing import Call, Route
from service.http.schemas import BINARY, Embeddings
from service.inference import readings
from service.inference.pipeline import Pipeline
from service.inference.readings import Reading
from service.runtime import Runtime

FLOATS: Final = "application/octet-stream"
NPY: Final = "application/x-npy"


class EmbedQuery(ModelQuery):
    normalize: bool = Field(False, description="Whether each embedding is brought to a Euclidean length of 1.")


def reading(query: EmbedQuery, pipeline: Pipeline) -> Reading:
    """What ``query`` wants of each image; ``MissingOutput`` where the model has no embedding."""
    return readings.joined({"embedding": readings.embedding(pipeline, query.normalize)})


class _Embed:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def embed(self, call: Call) -> Answer:
        query = call.query(EmbedQuery)
        media_type = choose(call.accept, (JSON, FLOATS, NPY))
        with self._runtime.use_for(call, query.model, query.version) as pipeline:
            wanted = reading(query, pipeline)
            async with admitted(self._runtime, call) as images:
                found = await pipeline.run_each(images, wanted.read, call.deadline, wanted.outputs)
        if media_type == JSON:
            return json_answer(answer_of(call, pipeline, found, dimensions=pipeline.stored.manifest.outputs.embedding))
        return binary_answer(_numbers(found, media_type), media_type)


def _numbers(found: Sequence[Any], media_type: str) -> bytes:
    """The embeddings as float32, little-endian, ``[images, D]``; the first bad image's error where there is one."""
    for number, result in enumerate(found):
        if isinstance(result, ImageError):
            raise type(result)(f"images[{number}]: {result.message}")
    embeddings = np.stack([result["embedding"] for result in found]).astype("<f4")
    if media_type == FLOATS:
        return embeddings.tobytes()
    file = io.BytesIO()
    np.lib.format.write_array(file, embeddings)
    return file.getvalue()


_EXAMPLE: Final = {
    "model": {"name": "cifar10-resnet16", "version": "3"},
    "results": [{"embedding": [0.0, 1.25, 0.5, 0.0]}],
    "dimensions": 4,
    "request_id": "6d8bfe88b2384dc3bcd76489c5a3d124",
}


def routes(runtime: Runtime) -> list[Route]:
    """The routes of this module."""
    operation = Operation(
        "Embed images",
        "images",
        "The network's pooled features, one vector an image: images alike in content lie near each other. By the "
        f"Accept header as JSON, as `{FLOATS}` (float32, little-endian, an image after the other) or as `{NPY}` (a "
        "NumPy file of `[images, dimensions]`). In the latter two a bad image fails the request.",
        query=EmbedQuery,
        body=IMAGES_BODY,
        answers={200: {JSON: Embeddings, FLOATS: BINARY, NPY: BINARY}},
        errors=(*IMAGES_ERRORS, MissingOutput, NotAcceptable),
        examples={"one image": _EXAMPLE},
    )
    return [Route("POST", "/v1/embed", _Embed(runtime).embed, operation, gated=True)]
