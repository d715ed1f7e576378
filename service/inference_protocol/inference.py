"""A request's way through the pipeline, and its answer as tensors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from service.errors import BadRequest, DeadlineExceeded, ImageError
from service.images.decode import Decoded, Ready
from service.images.decoding import AnyImage
from service.inference.outputs import OutputName, Outputs
from service.inference.pipeline import Pipeline
from service.inference.postprocess import Floats, top_k
from service.inference_protocol.metadata import outputs_of
from service.inference_protocol.requests import InferRequest, RequestedOutput
from service.inference_protocol.tensors import INPUT, join_strings, shown

_DEFAULT_OUTPUTS: Final = ("probabilities", "logits")
_OF_CLASSES: Final = ("probabilities", "logits")

Row = Floats | list[bytes]
"""One image's part of an output."""


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """FP32 numbers, or BYTES strings in the order of ``shape``."""

    name: str
    shape: tuple[int, ...]
    data: Floats | list[bytes]
    binary: bool

    @property
    def datatype(self) -> str:
        return "BYTES" if isinstance(self.data, list) else "FP32"

    def to_bytes(self) -> bytes:
        """The binary form: numbers little-endian, strings each behind its length."""
        return join_strings(self.data) if isinstance(self.data, list) else self.data.astype("<f4").tobytes()


@dataclass(frozen=True, slots=True)
class InferAnswer:
    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


async def infer(pipeline: Pipeline, request: InferRequest, deadline: float) -> InferAnswer:
    """The outputs that ``request`` wants, by ``deadline`` on the event loop's clock, or its own timeout.

    One bad image fails the request: the others' rows could not be told from it. Its error says which it is.
    """
    requested = _requested(pipeline, request)
    readers = [_reader(pipeline, output) for output in requested]
    graph_outputs = _graph_outputs(requested)
    images = _images(pipeline, request)

    def read(outputs: Outputs) -> list[Row]:
        return [reader(outputs) for reader in readers]

    async with _within(request.timeout_s):
        rows = _sound(await pipeline.run_each(images, read, deadline, graph_outputs))
    manifest = pipeline.stored.manifest
    outputs = [_tensor(output, [row[i] for row in rows]) for i, output in enumerate(requested)]
    return InferAnswer(manifest.name, manifest.version, request.id, outputs)


@asynccontextmanager
async def _within(timeout_s: float | None) -> AsyncIterator[None]:
    """Ends the block, and takes its images out of the queue, where the client's own time is over."""
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if limit.expired():
            raise DeadlineExceeded(f"no answer within the {timeout_s:g} s that the request gave") from error
        raise


def _requested(pipeline: Pipeline, request: InferRequest) -> Sequence[RequestedOutput]:
    if not request.outputs:
        return [RequestedOutput(name, binary=request.binary) for name in _DEFAULT_OUTPUTS]
    known = outputs_of(pipeline.stored.manifest)
    for output in request.outputs:
        if output.name not in known:
            raise BadRequest(f"unknown output {shown(output.name)}; the model has {', '.join(known)}")
        if output.classes is not None and output.name not in _OF_CLASSES:
            raise BadRequest(f"output {output.name!r} has no classes; {' and '.join(_OF_CLASSES)} have")
    return request.outputs


def _graph_outputs(requested: Sequence[RequestedOutput]) -> tuple[OutputName, ...]:
    names = {output.name for output in requested}
    wanted: list[OutputName] = ["logits"]
    if "embedding" in names:
        wanted.append("embedding")
    if "cam" in names:
        wanted.append("cam")
    return tuple(wanted)


def _images(pipeline: Pipeline, request: InferRequest) -> Sequence[AnyImage]:
    if not request.preprocessed:
        return request.images
    spec = pipeline.stored.manifest.preprocessing
    wanted = (spec.height, spec.width, 3)
    decoded: list[Ready] = []
    for image in request.images:
        if isinstance(image, bytes) or image.shape != wanted:
            raise BadRequest(f"input {INPUT!r}: preprocessed images must be UINT8 [n, {spec.height}, {spec.width}, 3]")
        decoded.append(Ready(Decoded(image, (image.shape[1], image.shape[0]))))
    return decoded


def _reader(pipeline: Pipeline, output: RequestedOutput) -> Callable[[Outputs], Row]:
    """Reads one output of one image, in the slot's thread."""
    values = _VALUES[output.name]
    if output.classes is None:
        return lambda outputs: values(pipeline, outputs)
    k = min(output.classes, len(pipeline.labels))

    def classes(outputs: Outputs) -> list[bytes]:
        best = top_k(values(pipeline, outputs), pipeline.labels, k)
        # As Triton writes them.
        return [f"{found.probability:f}:{found.index}:{found.label}".encode() for found in best]

    return classes


def _there(values: Floats | None) -> Floats:
    if values is None:
        raise RuntimeError("the graph was not asked for this output")
    return values


_VALUES: Final[dict[str, Callable[[Pipeline, Outputs], Floats]]] = {
    "probabilities": lambda pipeline, outputs: pipeline.probabilities(outputs.logits),
    "logits": lambda _, outputs: outputs.logits,
    "embedding": lambda _, outputs: _there(outputs.embedding),
    "cam": lambda _, outputs: _there(outputs.cam),
}


def _sound(results: Sequence[list[Row] | ImageError]) -> list[list[Row]]:
    """The rows of all images, or the first bad image's error with its number."""
    rows: list[list[Row]] = []
    for number, result in enumerate(results):
        if isinstance(result, ImageError):
            raise type(result)(f"image {number} of {len(results)}: {result.message}")
        rows.append(result)
    return rows


def _tensor(output: RequestedOutput, rows: Sequence[Any]) -> OutputTensor:
    """All images' rows of one output as one tensor."""
    if output.classes is None:
        values: Floats = rows[0][np.newaxis] if len(rows) == 1 else np.stack(rows)
        return OutputTensor(output.name, values.shape, np.ascontiguousarray(values), output.binary)
    return OutputTensor(output.name, (len(rows), len(rows[0])), [s for row in rows for s in row], output.binary)
