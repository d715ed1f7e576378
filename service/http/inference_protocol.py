"""``/v2``: the Open Inference Protocol over HTTP."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

from pydantic import BaseModel, Field

from service.batching.gate import Ticket
from service.errors import (
    NotReady,
    ShuttingDown,
    UnknownModel,
)
from service.http.answers import Answer, json_answer
from service.http.disconnect import UntilDisconnect
from service.http.images import IMAGES_ERRORS
from service.http.inference_body import answer_body, parse_body
from service.http.intake import received_body
from service.http.operation import Operation
from service.http.routing import Call, Query, Route
from service.http.schemas import BINARY
from service.inference.pipeline import Pipeline
from service.inference_protocol.inference import infer
from service.inference_protocol.metadata import SERVER, model_metadata
from service.inference_protocol.requests import InferRequest
from service.runtime import Runtime

_TAG: Final = "inference protocol"
_PARSE_ASIDE_FROM_BYTES: Final = 2**16  # unpacking and base64 of more than this would hold up the event loop
_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = "/v2/models/{name}/versions/{version}"


class TensorMetadataBody(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 where the request decides.")


class ServerMetadataBody(BaseModel):
    name: str
    version: str
    extensions: list[str]


class ModelMetadataBody(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadataBody]
    outputs: list[TensorMetadataBody]


class LiveBody(BaseModel):
    live: bool


class ReadyBody(BaseModel):
    ready: bool


class ModelReadyBody(BaseModel):
    name: str
    ready: bool


class InputTensorBody(BaseModel):
    """The images: BYTES `[n]`, encoded, as base64 text; or UINT8 `[n, height, width, 3]`, RGB pixels."""

    name: str = Field(description="`image`")
    datatype: str = Field(description="`BYTES` or `UINT8`")
    shape: list[int]
    parameters: dict[str, Any] = Field(
        {}, description="With `binary_data_size` the data are so many bytes behind the JSON."
    )
    data: list[Any] | None = Field(None, description="Flat, or nested as the shape is; absent with `binary_data_size`.")


class RequestedOutputBody(BaseModel):
    name: str = Field(description="`probabilities`, `logits`, `embedding` or `cam`")
    parameters: dict[str, Any] = Field(
        {},
        description="`classification`: k, for the k best classes as `value:index:label`; `binary_data`: true or false.",
    )


class InferRequestBody(BaseModel):
    id: str = ""
    parameters: dict[str, Any] = Field(
        {},
        description="`binary_data_output`: outputs behind the JSON; `preprocessed`: the pixels are the network's input "
        "as it takes it; `timeout`: microseconds.",
    )
    inputs: list[InputTensorBody]
    outputs: list[RequestedOutputBody] = Field([], description="`probabilities` and `logits` if empty.")


class OutputTensorBody(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class InferAnswerBody(BaseModel):
    model_name: str
    model_version: str
    id: str = ""
    outputs: list[OutputTensorBody]


_EXAMPLES: Final = {
    "the two best classes": {
        "model_name": "cifar10-resnet16",
        "model_version": "3",
        "id": "1",
        "outputs": [
            {
                "name": "probabilities",
                "datatype": "BYTES",
                "shape": [1, 2],
                "data": ["0.931000:8:ship", "0.044000:0:airplane"],
            }
        ],
    },
}


class _Protocol:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def server(self, call: Call) -> Answer:
        call.query(Query)
        return json_answer(SERVER)

    async def live(self, call: Call) -> Answer:
        call.query(Query)
        return json_answer({"live": True})

    async def ready(self, call: Call) -> Answer:
        call.query(Query)
        if reason := self._runtime.unready:
            raise NotReady(reason)
        return json_answer({"ready": True})

    async def model(self, call: Call) -> Answer:
        call.query(Query)
        with self._use(call) as pipeline:
            return json_answer(model_metadata(self._runtime, pipeline))

    async def model_ready(self, call: Call) -> Answer:
        call.query(Query)
        with self._use(call) as pipeline:
            return json_answer({"name": pipeline.stored.manifest.name, "ready": True})

    async def infer(self, call: Call) -> Answer:
        call.query(Query)
        with self._use(call) as pipeline, self._runtime.gate.admit(call.holder) as ticket:
            request = await self._read(call, ticket)
            call.stages.images = len(request.images)
            ticket.extend(len(request.images))
            async with UntilDisconnect(call.receive):
                answer = await infer(pipeline, request, call.deadline)
        return answer_body(answer)

    def _use(self, call: Call) -> AbstractContextManager[Pipeline]:
        return self._runtime.use_for(call, call.path["name"], call.path.get("version"))

    async def _read(self, call: Call, ticket: Ticket) -> InferRequest:
        limits = self._runtime.settings.limits
        body = await received_body(self._runtime, call, ticket)
        wanted = (call.headers, body, limits.max_body_bytes, limits.images_per_request)
        if len(body) < _PARSE_ASIDE_FROM_BYTES and "content-encoding" not in call.headers:
            return parse_body(*wanted)[0]
        request, unpacked_bytes = await self._runtime.in_decode_pool(parse_body, *wanted)
        ticket.hold(max(0, unpacked_bytes - len(body)))  # the images lie in what was unpacked
        return request


def routes(runtime: Runtime) -> list[Route]:
    """The routes of this module."""
    protocol = _Protocol(runtime)
    server = Operation("Server metadata", _TAG, answers={200: {"application/json": ServerMetadataBody}})
    live = Operation("Whether the server lives", _TAG, answers={200: {"application/json": LiveBody}}, access="open")
    ready = Operation(
        "Whether the server is ready",
        _TAG,
        "503 until every model of every worker is warm.",
        answers={200: {"application/json": ReadyBody}},
        errors=(NotReady,),
        access="open",
    )
    not_now = (NotReady, ShuttingDown)
    model_errors = (UnknownModel, *not_now)
    model = Operation(
        "Model metadata", _TAG, answers={200: {"application/json": ModelMetadataBody}}, errors=model_errors
    )
    model_ready = Operation(
        "Whether a model is ready", _TAG, answers={200: {"application/json": ModelReadyBody}}, errors=model_errors
    )
    inference = Operation(
        "Inference",
        _TAG,
        "Images in, tensors out. With the header `Inference-Header-Content-Length` so many bytes of the body are JSON "
        "and tensors in binary form follow; with 0 the body is one encoded image.",
        body={
            "application/json": InferRequestBody,
            "application/octet-stream": BINARY,
        },
        answers={
            200: {
                "application/json": InferAnswerBody,
                "application/octet-stream": BINARY,
            }
        },
        errors=(*not_now, *IMAGES_ERRORS),
        examples=_EXAMPLES,
    )
    return [
        Route("GET", "/v2", protocol.server, server),
        Route("GET", "/v2/health/live", protocol.live, live),
        Route("GET", "/v2/health/ready", protocol.ready, ready),
        *(
            route
            for path in (_MODEL, _VERSION)
            for route in (
                Route("GET", path, protocol.model, model),
                Route("GET", f"{path}/ready", protocol.model_ready, model_ready),
                Route("POST", f"{path}/infer", protocol.infer, inference, gated=True),
            )
        ),
    ]
