"""``/v1/classify``: images in, what the network sees in them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema

from service.errors import BadRequest, ImageError, MissingOutput, NoHeatmap
from service.http.answers import Answer, json_answer
from service.http.images import IMAGES_BODY, IMAGES_ERRORS, JSON, ModelQuery, Share, TopK, answer_of
from service.http.intake import admitted
from service.http.operation import Operation
from service.http.routing import Call, Route
from service.http.schemas import Classified
from service.inference import readings
from service.inference.pipeline import Pipeline
from service.inference.readings import Reading
from service.runtime import Runtime

PartName = Literal["predictions", "embedding", "heatmap", "scores", "timings"]
PARTS: Final[tuple[PartName, ...]] = get_args(PartName)

_PART = f"({'|'.join(PARTS)})"


def _named(value: object) -> object:
    """``"predictions,scores"`` as a set."""
    if not isinstance(value, str):
        return value
    names = value.split(",")
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        raise ValueError(f"{unknown[0][:64]!r} is none of {', '.join(PARTS)}")
    return frozenset(names)


class ClassifyQuery(ModelQuery):
    top_k: TopK | None = Field(
        None, description="How many classes to answer, from 1 to all; 5 if absent, or all where there are fewer."
    )
    include: Annotated[
        frozenset[PartName],
        BeforeValidator(_named),
        WithJsonSchema({"type": "string", "pattern": f"^{_PART}(,{_PART})*$"}),
    ] = Field(
        frozenset({"predictions"}),
        description=f"What is answered of each image, separated by commas: {', '.join(PARTS)}.",
        json_schema_extra={"default": "predictions"},
    )
    class_: str | None = Field(
        None, alias="class", description="The heatmap's class, by label or index; the best one if absent."
    )
    min_probability: Share | None = Field(
        None,
        description="Abstain where the best class is less probable: such a result has `abstained` true and no "
        "predictions.",
    )


_MAKERS: Final[dict[PartName, Callable[[ClassifyQuery, Pipeline], Reading]]] = {
    "predictions": lambda query, pipeline: readings.predictions(pipeline, query.top_k),
    "embedding": lambda query, pipeline: readings.embedding(pipeline),
    "heatmap": lambda query, pipeline: readings.as_json(readings.heatmap(pipeline, query.class_)),
    "scores": lambda query, pipeline: readings.scores(pipeline),
    "timings": lambda query, pipeline: Reading(readings.timings),
}


def reading(query: ClassifyQuery, pipeline: Pipeline) -> Reading:
    """What ``query`` wants of each image; raises ``BadRequest`` or ``MissingOutput`` where that cannot be."""
    if query.class_ is not None and "heatmap" not in query.include:
        raise BadRequest("class: chooses the heatmap's class, and include names no heatmap")
    wanted = readings.joined({name: make(query, pipeline) for name, make in _MAKERS.items() if name in query.include})
    if query.min_probability is None:
        return wanted
    return readings.abstaining(wanted, pipeline, query.min_probability)


class _Classify:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def classify(self, call: Call) -> Answer:
        query = call.query(ClassifyQuery)
        with self._runtime.use_for(call, query.model, query.version) as pipeline:
            wanted = reading(query, pipeline)
            async with admitted(self._runtime, call) as images:
                found = await pipeline.run_each(images, wanted.read, call.deadline, wanted.outputs)
        if "timings" in query.include:
            for result in found:
                if not isinstance(result, ImageError):
                    result["timings"] = {"read": call.stages.read_s, **result["timings"]}
        return json_answer(answer_of(call, pipeline, found))


_PREDICTIONS: Final = [
    {"label": "ship", "index": 8, "probability": 0.9512},
    {"label": "truck", "index": 9, "probability": 0.0069},
]
_MODEL: Final = {"name": "cifar10-resnet16", "version": "3"}
_REQUEST_ID: Final = "6d8bfe88b2384dc3bcd76489c5a3d124"
_EXAMPLES: Final[dict[str, Any]] = {
    "predictions": {"model": _MODEL, "results": [{"predictions": _PREDICTIONS}], "request_id": _REQUEST_ID},
    "include=predictions,scores&min_probability=0.5": {
        "model": _MODEL,
        "results": [
            {
                "predictions": _PREDICTIONS,
                "scores": {"max_logit": 9.94, "energy": 10.0, "out_of_distribution": None},
                "abstained": False,
            }
        ],
        "request_id": _REQUEST_ID,
    },
    "a bad image among others": {
        "model": _MODEL,
        "results": [
            {"predictions": _PREDICTIONS},
            {"error": {"code": "bad_image", "message": "the jpeg image cannot be decoded: image file is truncated"}},
        ],
        "request_id": _REQUEST_ID,
    },
}


def routes(runtime: Runtime) -> list[Route]:
    """The routes of this module."""
    operation = Operation(
        "Classify images",
        "images",
        "One image as the body, one or many as files of a form, or in base64 in JSON. A bad image among several has "
        "its error in its place; alone, its error is the answer.",
        query=ClassifyQuery,
        body=IMAGES_BODY,
        answers={200: {JSON: Classified}},
        errors=(*IMAGES_ERRORS, NoHeatmap, MissingOutput),
        examples=_EXAMPLES,
    )
    return [Route("POST", "/v1/classify", _Classify(runtime).classify, operation, gated=True)]
