"""An ONNX file that somebody else made: read as data, refused unless it is a plain float image classifier.

What is refused: weights outside the file (they may point anywhere), operators
outside ONNX's own domain, control flow and functions, tensors beyond any
network's size. What is left ONNX Runtime runs without surprises.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, checker, shape_inference

from export.checkpoints.weight_files import read_bounded
from export.errors import ONE_OUTPUT
from export.graphs.contract import GraphError

# Protocol buffers end here.
MAX_ONNX_BYTES: Final = 2**31 - 1
MAX_NODES: Final = 50_000
# Elements of one tensor for one image; the largest of a ResNet at 1024 pixels is a fifteenth of it.
MAX_ELEMENTS: Final = 2**28
MAX_BATCH: Final = 1024
_DOMAINS: Final = ("", "ai.onnx")
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_LOGITS: Final = ("logits", "output")


@dataclass(frozen=True)
class OnnxFile:
    """A file that passed.

    input    -- its name; the tensor is float32 ``[batch, 3, size, size]``.
    batch    -- how many images it takes at once; None where any number.
    size     -- height and width; None where any.
    output   -- the output with a number for each class.
    classes  -- how many.
    opset    -- of ONNX's operators.
    """

    path: Path
    sha256: str
    model: onnx.ModelProto
    input: str
    batch: int | None
    size: int | None
    output: str
    classes: int
    opset: int

    @property
    def parameters(self) -> int:
        """Numbers among its weights."""
        return sum(math.prod(tensor.dims) for tensor in _tensors(self.model.graph) if tensor.data_type in _FLOATS)


def read_onnx(path: Path) -> OnnxFile:
    """The network in ``path``; ``GraphError`` names the first thing that keeps it from being served."""
    data = read_bounded(path, MAX_ONNX_BYTES)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise GraphError(f"{path}: not an ONNX file, or a damaged one") from error
    if not model.graph.node:
        raise GraphError(f"{path}: not an ONNX file, or one without a network")
    try:
        _refuse_the_unusual(model)
        _validate(model)
        name, batch, size = _input(model.graph)
        output, classes = _output(_inferred(model, size, batch or 1))
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error
    opset = next((int(entry.version) for entry in model.opset_import if entry.domain in _DOMAINS), 1)
    file = OnnxFile(path, hashlib.sha256(data).hexdigest(), model, name, batch, size, output, classes, opset)
    if not file.parameters:
        raise GraphError(f"{path}: holds no floating-point weights; export the network before it is quantized")
    return file


def _refuse_the_unusual(model: onnx.ModelProto) -> None:
    graph = model.graph
    if model.functions:
        raise GraphError("holds functions of its own; inline them first (onnx.inliner.inline_local_functions)")
    if len(graph.node) > MAX_NODES:
        raise GraphError(f"holds {len(graph.node)} nodes; {MAX_NODES} are the most that is read")
    if graph.sparse_initializer:
        raise GraphError("holds sparse weights, which are not read")
    for node in graph.node:
        _refuse_node(node)
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise GraphError(
                f"keeps {tensor.name!r} outside itself, where nothing is read; "
                "save it in one piece: onnx.save(onnx.load(FILE), NEW_FILE)"
            )


def _refuse_node(node: onnx.NodeProto) -> None:
    if node.domain not in _DOMAINS:
        raise GraphError(f"operator {node.op_type} is of {node.domain!r}; only ONNX's own are run")
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise GraphError(f"operator {node.op_type} holds a graph of its own; a ResNet needs no control flow")
        if attribute.type in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
            raise GraphError("holds sparse weights, which are not read")


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _validate(model: onnx.ModelProto) -> None:
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise GraphError(f"not valid ONNX: {' '.join(str(error).split())}") from error


def dimensions(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """The shape of ``value``, None for what is unknown in it, or for all of it."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(int(d.dim_value) if d.HasField("dim_value") else None for d in tensor.shape.dim)


def _input(graph: onnx.GraphProto) -> tuple[str, int | None, int | None]:
    """Name, batch and size of the one input."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise GraphError(f"takes {len(inputs)} inputs; an image classifier takes one")
    (image,) = inputs
    shape = dimensions(image)
    if image.type.tensor_type.elem_type != TensorProto.FLOAT or shape is None or len(shape) != 4:
        raise GraphError(f"input {image.name!r} is no float32 [batch, 3, height, width]")
    batch, channels, height, width = shape
    if channels != 3:
        last = "; it seems to take [batch, height, width, 3], transpose it first" if width == 3 else ""
        raise GraphError(f"input {image.name!r} has {channels} channels in second place, not 3{last}")
    if height != width:
        raise GraphError(f"input {image.name!r} is {height}x{width}; only squares are served")
    if batch == 0 or height == 0:
        raise GraphError(f"input {image.name!r} takes no pixels")
    if batch is not None and batch > MAX_BATCH:
        raise GraphError(f"input {image.name!r} takes {batch} images at once; {MAX_BATCH} are the most that is read")
    return image.name, batch, height


def _inferred(model: onnx.ModelProto, size: int | None, batch: int) -> onnx.GraphProto:
    """The graph with the shapes of ``batch`` images of ``size`` (224 where it takes any), none of them out of hand."""
    graph = with_shapes(model, size or 224, None).graph
    for value in graph.value_info:
        shape = dimensions(value) or ()
        # The first dimension counts too: not every tensor has the batch there.
        if math.prod(d for d in shape if d is not None) > MAX_ELEMENTS * batch:
            raise GraphError(f"tensor {value.name!r} is {list(shape)}; no network here needs so much")
    return graph


def with_shapes(model: onnx.ModelProto, size: int, batch: str | None) -> onnx.ModelProto:
    """A copy of ``model`` with the shapes of all tensors, inferred anew for images of ``size``.

    ``batch`` names the first dimension of input and outputs; None leaves it as it is.
    ``GraphError`` where the shapes contradict each other.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    weights = {tensor.name for tensor in copy.graph.initializer}
    for value in copy.graph.input:
        if value.name in weights:
            continue
        first, _, height, width = value.type.tensor_type.shape.dim
        height.dim_value = width.dim_value = size
        if batch is not None:
            first.dim_param = batch
    if batch is not None:
        for value in copy.graph.output:
            value.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(copy, data_prop=True)
    except (shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise GraphError(f"its shapes do not fit together: {' '.join(str(error).split())}") from error


def _output(graph: onnx.GraphProto) -> tuple[str, int]:
    """Name and classes of the output with the logits."""
    found = {value.name: dimensions(value) for value in graph.output if _is_scores(value)}
    names = [name for name in found if len(found) == 1 or name in _LOGITS]
    if len(names) != 1:
        there = ", ".join(f"{value.name} {_text(dimensions(value))}" for value in graph.output[:5])
        raise GraphError(f"which output holds the logits is not clear: {there}; name it 'logits', [batch, classes]")
    shape = found[names[0]]
    assert shape is not None  # noqa: S101 - _is_scores has seen to it  # nosec B101
    if not shape[1]:
        raise GraphError(f"output {names[0]!r}: the number of classes is not fixed")
    if shape[1] == 1:
        raise GraphError(f"output {names[0]!r}: {ONE_OUTPUT}")
    return names[0], shape[1]


def _is_scores(value: onnx.ValueInfoProto) -> bool:
    shape = dimensions(value)
    return value.type.tensor_type.elem_type == TensorProto.FLOAT and shape is not None and len(shape) == 2


def _text(shape: Sequence[int | None] | None) -> str:
    return "[?]" if shape is None else f"[{', '.join('?' if d is None else str(d) for d in shape)}]"
