"""How an ONNX network ends: which tensors are its embedding and its last maps.

Known is a linear layer (``Gemm``, ``MatMul`` with or without ``Add``, or a 1x1
``Conv`` on one pixel), right behind global average pooling or behind something else.
A ``Softmax`` or ``LogSoftmax`` at the very end is left out, as the service has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from export.errors import ExportError
from export.graphs.foreign_file import dimensions

Floats = npt.NDArray[np.float32]
Shape = tuple[int | None, ...]

# In inference these pass their first input on, perhaps in another shape.
_SAME: Final = ("Identity", "Dropout")
_RESHAPES: Final = (*_SAME, "Flatten", "Reshape", "Squeeze")
# What may follow a softmax: it changes no answer.
_BEHIND: Final = (*_RESHAPES, "Cast", "Clip")
_SOFTMAX: Final = ("Softmax", "LogSoftmax")
_NOT_LOGITS: Final = ("Sigmoid", "HardSigmoid")


@dataclass(frozen=True)
class Linear:
    """logits = weight x embedding + bias.

    embedding -- the tensor before it; ``[batch, D]``, or ``[batch, D, 1, 1]`` before a convolution.
    weight    -- ``[classes, D]``.
    bias      -- ``[classes]``.
    """

    embedding: str
    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Head:
    """How a network ends.

    logits -- the tensor that holds them: the output, or what its softmax is of.
    linear -- the last layer; None where it is no linear one.
    maps   -- the tensor ``[batch, D, h, w]`` whose average is the embedding, with h and w; None where it is not.
    """

    logits: str
    linear: Linear | None = None
    maps: tuple[str, int, int] | None = None


class GraphView:
    """A graph with inferred shapes, to walk through from its end."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.producers: Mapping[str, onnx.NodeProto] = {name: node for node in graph.node for name in node.output}
        values = (*graph.value_info, *graph.input, *graph.output)
        self._shapes = {value.name: dimensions(value) for value in values}
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}

    @cached_property
    def _weights(self) -> dict[str, onnx.TensorProto]:
        constants = {
            node.output[0]: attribute.t
            for node in self.graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        return constants | {tensor.name: tensor for tensor in self.graph.initializer}

    def shape(self, name: str) -> Shape | None:
        return self._shapes.get(name)

    def is_single(self, name: str) -> bool:
        """Whether the tensor is float32."""
        return self._types.get(name) == onnx.TensorProto.FLOAT

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """The value of a weight or constant; None for what depends on the image."""
        tensor = self._weights.get(name)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def weight(self, name: str, rank: int) -> Floats | None:
        value = self.constant(name)
        return value.astype(np.float32) if value is not None and value.ndim == rank else None

    def before(self, name: str, skipped: tuple[str, ...]) -> tuple[str, onnx.NodeProto | None]:
        """The tensor that ``name`` is but for ``skipped`` operators, and the node that makes it."""
        node = self.producers.get(name)
        while node is not None and node.op_type in skipped:
            name = node.input[0]
            node = self.producers.get(name)
        return name, node


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def find_head(graph: onnx.GraphProto, output: str) -> Head:
    """How the part of ``graph`` that makes ``output`` ends; ``graph`` has the shapes of its tensors."""
    view = GraphView(graph)
    _, node = view.before(output, _BEHIND)
    if node is not None and node.op_type in _NOT_LOGITS:
        raise ExportError(f"{output!r} is a {node.op_type}: each class by itself, where the service has one of several")
    if node is not None and node.op_type in _SOFTMAX:
        logits = node.input[0]
        if len(view.shape(logits) or view.shape(output) or ()) != len(view.shape(output) or ()):
            raise ExportError(f"{output!r} is a softmax in another shape: export the network without it")
        if not view.is_single(logits):
            raise ExportError(f"{output!r} is a softmax of half precision: export the network without it")
        output = logits
    name, _ = view.before(output, _SAME)
    linear = _linear(view, name)
    if linear is None:
        return Head(output)
    return Head(output, linear, _maps(view, linear))


def _linear(view: GraphView, name: str) -> Linear | None:
    """The linear layer that makes ``name``."""
    name, node = view.before(name, _SAME)
    if node is None:
        return None
    if node.op_type == "Gemm":
        return _gemm(view, node)
    if node.op_type == "MatMul":
        return _matmul(view, node, None)
    if node.op_type == "Add":
        for product, bias in (node.input, reversed(node.input)):
            value, inner = view.constant(bias), view.producers.get(product)
            if value is not None and inner is not None and inner.op_type == "MatMul":
                return _matmul(view, inner, value.astype(np.float32))
    return _conv(view, name)


def _gemm(view: GraphView, node: onnx.NodeProto) -> Linear | None:
    settings = attributes(node)
    weight = view.weight(node.input[1], 2)
    if (
        weight is None
        or settings.get("transA")
        or settings.get("alpha", 1.0) != 1.0
        or settings.get("beta", 1.0) != 1.0
    ):
        return None
    weight = weight if settings.get("transB") else weight.T
    return _checked(node.input[0], weight, view.constant(node.input[2]) if len(node.input) > 2 else None)


def _matmul(view: GraphView, node: onnx.NodeProto, bias: Floats | None) -> Linear | None:
    weight = view.weight(node.input[1], 2)
    return None if weight is None else _checked(node.input[0], weight.T, bias)


def _conv(view: GraphView, name: str) -> Linear | None:
    """A convolution of the one pixel that pooling leaves."""
    _, node = view.before(name, _RESHAPES)
    if node is None or node.op_type != "Conv":
        return None
    weight, shape = view.weight(node.input[1], 4), view.shape(node.input[0])
    if weight is None or weight.shape[2:] != (1, 1) or shape is None or shape[2:] != (1, 1):
        return None
    if shape[1] != weight.shape[1] or any(attributes(node).get("pads", ())):
        return None
    bias = view.constant(node.input[2]) if len(node.input) > 2 else None
    return _checked(node.input[0], weight[:, :, 0, 0], bias)


def _checked(embedding: str, weight: Floats, bias: npt.NDArray[np.generic] | None) -> Linear | None:
    classes = weight.shape[0]
    flat = np.zeros(classes, np.float32) if bias is None else bias.astype(np.float32).reshape(-1)
    if flat.shape != (classes,):
        return None
    return Linear(embedding, np.ascontiguousarray(weight), flat)


def _maps(view: GraphView, linear: Linear) -> tuple[str, int, int] | None:
    """The maps whose global average is the embedding."""
    _, node = view.before(linear.embedding, _RESHAPES)
    if node is None or not node.input:
        return None
    shape = view.shape(node.input[0])
    if shape is None or len(shape) != 4 or shape[1] != linear.weight.shape[1]:
        return None
    _, _, height, width = shape
    if height is None or width is None or not _averages(view, node, height, width):
        return None
    return node.input[0], height, width


def _averages(view: GraphView, node: onnx.NodeProto, height: int, width: int) -> bool:
    """Whether ``node`` is the mean over height and width."""
    settings = attributes(node)
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "AveragePool":
        padded = any(settings.get("pads", ())) or settings.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        return settings.get("kernel_shape") == [height, width] and not padded and not settings.get("ceil_mode")
    if node.op_type == "ReduceMean":
        axes = view.constant(node.input[1]) if len(node.input) > 1 else settings.get("axes")
        return axes is not None and {int(axis) % 4 for axis in np.asarray(axes).reshape(-1)} == {2, 3}
    return False
