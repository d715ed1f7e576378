"""Which nodes of a serving graph compute feature maps, and how they form layers.

These are the nodes that may change their arithmetic: the convolutions and what
follows them on tensors of four dimensions. Preprocessing, pooling, head and
class activation maps stay fp32: they cost next to nothing, and what they lose
would show in every answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Final

import onnx
from onnx import TensorProto

_MAP_DIMENSIONS: Final = 4
# These round what they compute; the others (ReLU, pooling, slices) hand on what they get.
_COMPUTING: Final = frozenset({"Conv", "Add", "Mul", "Concat"})
_FUSED: Final = frozenset({"Relu", "Clip"})


@dataclass(frozen=True)
class Layer:
    """A convolution or sum with its activation: the nodes that are float or not together.

    name  -- the weight's own name (``layer1.0.conv1``); for a sum, that of the convolution before it.
    nodes -- names of the graph's nodes.
    """

    name: str
    nodes: tuple[str, ...]


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node without a name, or with that of one before it, a name of its own."""
    taken = {node.name for node in graph.node} | {""}
    seen = {""}
    for number, node in enumerate(graph.node):
        if node.name in seen:
            node.name = next(name for i in count(number) if (name := f"{node.op_type}_{i}") not in taken)
            taken.add(node.name)
        seen.add(node.name)


def feature_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of ``model`` that compute feature maps, in its order; ``model`` has the shapes of all tensors."""
    maps = _feature_maps(model)
    reached: set[str] = set()
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv" and reached.isdisjoint(node.input):
            continue  # preprocessing
        reached.update(node.output)
        if maps.issuperset(node.output):
            found.append(node)
    return found


def _feature_maps(model: onnx.ModelProto) -> set[str]:
    """Names of the float tensors of four dimensions inside the graph.

    Maps of one pixel are the gates of squeeze-and-excitation blocks: as cheap, and as delicate, as the head.
    """
    found = set()
    for value in model.graph.value_info:
        tensor = value.type.tensor_type
        size = [dimension.dim_value for dimension in tensor.shape.dim]
        if tensor.elem_type == TensorProto.FLOAT and len(size) == _MAP_DIMENSIONS and size[2:] != [1, 1]:
            found.add(value.name)
    return found - {output.name for output in model.graph.output}


def layers(nodes: Iterable[onnx.NodeProto]) -> list[Layer]:
    """``nodes`` (of ``feature_nodes``) as layers, in the graph's order."""
    nodes = list(nodes)
    consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            consumers[name].append(node)
    names: dict[str, str] = {}  # the convolution that a tensor comes from
    found = []
    for node in nodes:
        if node.op_type == "Conv":
            name = _weight_name(node)
        else:
            name = next((names[tensor] for tensor in node.input if tensor in names), node.name)
        names.update(dict.fromkeys(node.output, name))
        if node.op_type in _COMPUTING:
            label = name if node.op_type == "Conv" else f"{node.op_type} behind {name}"
            found.append(Layer(label, (node.name, *_activation(node, consumers))))
    return found


def _weight_name(node: onnx.NodeProto) -> str:
    return node.input[1].removeprefix("net.").removesuffix(".weight") or node.name


def _activation(node: onnx.NodeProto, consumers: dict[str, list[onnx.NodeProto]]) -> list[str]:
    """The activation that alone consumes ``node``, as the two are computed in one."""
    following = consumers[node.output[0]]
    return [following[0].name] if len(following) == 1 and following[0].op_type in _FUSED else []
