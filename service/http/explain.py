"""``/v1/explain``: where in an image the network sees a class, as numbers or as a picture."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from service.errors import BadRequest, MissingOutput, NoHeatmap, NotAcceptable
from service.http.accept import choose
from service.http.answers import Answer, binary_answer, json_answer
from service.http.images import IMAGES_BODY, IMAGES_ERRORS, JSON, ModelQuery, Share, answer_of
from service.http.intake import admitted
from service.http.operation import Operation
from service.http.routing import Call, Route
from service.http.schemas import BINARY, Explained
from service.images.decode import Costly
from service.inference import readings
from service.inference.colormaps import ColorMap
from service.inference.heatmap import Heatmap, draw, overlay, png
from service.inference.pipeline import Pipeline
from service.inference.readings import Reading
from service.runtime import Runtime

PNG: Final = "image/png"


class ExplainQuery(ModelQuery):
    class_: str | None = Field(
        None, alias="class", description="The class to explain, by label or index; the best one if absent."
    )
    style: Literal["heatmap", "overlay"] | None = Field(
        None,
        description="How a PNG shows it: `heatmap`, the map alone, transparent where the network saw nothing, or "
        "`overlay`, over the image, as if absent. Where the Accept header takes both, a style asks for the PNG.",
    )
    opacity: Share = Field(0.5, description="Of the map over the image, from 0 (unseen) to 1.")
    colormap: ColorMap = Field("inferno", description="The map's colours, from its lowest value to its highest.")


def reading(query: ExplainQuery, pipeline: Pipeline) -> Reading:
    """What ``query`` wants of each image as JSON; raises ``BadRequest`` or ``MissingOutput`` where that cannot be."""
    return readings.joined(
        {
            "heatmap": readings.as_json(readings.heatmap(pipeline, query.class_)),
            "predictions": readings.predictions(pipeline, None),
        }
    )


class _Explain:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def explain(self, call: Call) -> Answer:
        query = call.query(ExplainQuery)
        offered = (JSON, PNG) if query.style is None else (PNG, JSON)
        as_picture = choose(call.accept, offered) == PNG
        with self._runtime.use_for(call, query.model, query.version) as pipeline:
            wanted = readings.heatmap(pipeline, query.class_) if as_picture else reading(query, pipeline)
            async with admitted(self._runtime, call) as images:
                if as_picture and len(images) > 1:
                    raise BadRequest("a PNG shows one image; send one, or accept application/json")
                if as_picture:
                    heatmap = await pipeline.run(images[0], wanted.read, call.deadline, wanted.outputs)
                    with self._runtime.metrics.timed("draw"):
                        picture = await self._picture(query, pipeline, images[0], heatmap, call.deadline)
                    return binary_answer(picture, PNG)
                found = await pipeline.run_each(images, wanted.read, call.deadline, wanted.outputs)
        return json_answer(answer_of(call, pipeline, found))

    async def _picture(
        self, query: ExplainQuery, pipeline: Pipeline, image: bytes, heatmap: Heatmap, deadline: float
    ) -> bytes:
        in_thread = self._runtime.in_decode_pool
        if query.style == "heatmap":
            return await in_thread(lambda: png(draw(heatmap, query.colormap)))
        try:
            upright = await in_thread(pipeline.upright, image)
        except Costly:  # it keeps none of the decode threads waiting
            upright = await pipeline.upright_apart(image, deadline)
        return await in_thread(lambda: png(overlay(upright, heatmap, query.colormap, query.opacity)))


_EXAMPLE: Final = {
    "model": {"name": "cifar10-resnet16", "version": "3"},
    "results": [
        {
            "heatmap": {
                "label": "ship",
                "index": 8,
                "logit": 4.25,
                "bias": 0.25,
                "height": 2,
                "width": 2,
                "grid": [[1.0, 2.0], [9.0, 4.0]],
                "box": [62.5, 0.0, 437.5, 375.0],
                "image": {"width": 500, "height": 375},
            },
            "predictions": [{"label": "ship", "index": 8, "probability": 0.9512}],
        }
    ],
    "request_id": "6d8bfe88b2384dc3bcd76489c5a3d124",
}


def routes(runtime: Runtime) -> list[Route]:
    """The routes of this module."""
    operation = Operation(
        "Explain a class",
        "images",
        "The exact class activation map: what each part of the image adds to the class's logit. By the Accept header "
        "as JSON, the grid as it is, or as a PNG of the upright image's size, of one image.",
        query=ExplainQuery,
        body=IMAGES_BODY,
        answers={200: {JSON: Explained, PNG: BINARY}},
        errors=(*IMAGES_ERRORS, NoHeatmap, MissingOutput, NotAcceptable),
        examples={"one image": _EXAMPLE},
    )
    return [Route("POST", "/v1/explain", _Explain(runtime).explain, operation, gated=True)]
