"""Protobuf's messages to what the service works with, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from service.errors import BadRequest
from service.grpc import open_inference_pb2 as pb
from service.grpc.wire import check_cost, malformed
from service.inference_protocol.inference import InferAnswer
from service.inference_protocol.metadata import ModelMetadata, ServerMetadata, TensorMetadata
from service.inference_protocol.requests import InferRequest, infer_request, no_shared_memory
from service.inference_protocol.tensors import INPUT, ImageTensor, Pixels

M = TypeVar("M", bound=Message)

_FIELDS_BESIDE_IMAGES: Final = 256


def read_message(kind: type[M], data: bytes, max_images: int) -> M:
    """The message in ``data``, or ``BadRequest``."""
    check_cost(data, kind, _FIELDS_BESIDE_IMAGES + max_images)
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise malformed() from error


def read_infer(message: pb.ModelInferRequest, max_images: int) -> InferRequest:
    """What ``message`` asks for; ``BadRequest`` or ``TooManyImages`` says what is wrong with it."""
    if len(message.inputs) != 1:
        raise BadRequest(f"the request has {len(message.inputs)} inputs; the model takes one, {INPUT!r}")
    outputs = [(output.name, _parameters(output.parameters)) for output in message.outputs]
    return infer_request(message.id, _images(message, max_images), _parameters(message.parameters), outputs)


def _images(message: pb.ModelInferRequest, max_images: int) -> Sequence[bytes | Pixels]:
    (tensor,) = message.inputs
    header = ImageTensor.checked(tensor.name, tensor.datatype, list(tensor.shape), max_images)
    no_shared_memory(f"input {INPUT!r}", _parameters(tensor.parameters))
    typed = tensor.HasField("contents")
    if message.raw_input_contents:
        if typed or len(message.raw_input_contents) != 1:
            raise BadRequest("raw_input_contents must hold one tensor for each input, which then have no contents")
        return header.from_binary(message.raw_input_contents[0])
    if not typed:
        raise BadRequest(f"input {INPUT!r} has no data")
    if header.datatype == "BYTES":
        return header.from_strings(list(tensor.contents.bytes_contents))
    try:
        return header.pixels(bytes(tensor.contents.uint_contents))
    except ValueError as error:
        raise BadRequest(f"input {INPUT!r}: UINT8 data must be whole numbers from 0 to 255") from error


def _parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    return {name: _value(parameter) for name, parameter in parameters.items()}


def _value(parameter: pb.InferParameter) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def infer_response(answer: InferAnswer) -> pb.ModelInferResponse:
    """``answer``, all its tensors in binary form, as Triton sends them."""
    outputs = [
        pb.ModelInferResponse.InferOutputTensor(name=output.name, datatype=output.datatype, shape=output.shape)
        for output in answer.outputs
    ]
    return pb.ModelInferResponse(
        model_name=answer.model_name,
        model_version=answer.model_version,
        id=answer.id,
        outputs=outputs,
        raw_output_contents=[output.to_bytes() for output in answer.outputs],
    )


def server_metadata(metadata: ServerMetadata) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name=metadata.name, version=metadata.version, extensions=metadata.extensions)


def model_metadata(metadata: ModelMetadata) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=_tensors(metadata.inputs),
        outputs=_tensors(metadata.outputs),
    )


def _tensors(tensors: Iterable[TensorMetadata]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    return [
        pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for tensor in tensors
    ]
