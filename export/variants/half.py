"""An fp16 graph from an fp32 one, for GPUs: feature maps and their weights in half precision.

Input and outputs keep their types. Preprocessing, pooling, head and class
activation maps stay fp32 (``export.graphs.feature_nodes``), with a cast where the two
meet. onnxruntime.transformers.float16 is not used, as it hands the outputs of
nodes kept in fp32 through fp16 once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.variants.quantize import Calibrated, QuantizeError, tidy

_HALF: Final = "_fp16"
_SINGLE: Final = "_fp32"
# Beyond the images of the calibration, values may be larger than on them.
_LIMIT: Final = float(np.finfo(np.float16).max) / 2


def halved(calibrated: Calibrated, float_nodes: frozenset[str] = frozenset()) -> onnx.ModelProto:
    """The fp16 graph, with ``float_nodes`` kept in fp32."""
    model = onnx.ModelProto()
    model.CopyFrom(calibrated.model)
    # Resize wants fp32 for its scales.
    wanted = {node.name for node in model.graph.node if node.op_type != "Resize"} & set(calibrated.nodes)
    if not wanted - float_nodes:
        raise QuantizeError("nothing is left to convert: all layers are kept float")
    _Halving(model, frozenset(wanted - float_nodes)).run()
    tidy(model)
    return model


def too_large(calibrated: Calibrated) -> frozenset[str]:
    """Nodes that meet values which fp16 cannot hold, or nearly so.

    CPUs without fp16 arithmetic compute such a graph in fp32, so the gate would not see the overflow there.
    """
    return frozenset(
        node.name
        for node in calibrated.model.graph.node
        if node.name in calibrated.nodes
        and any(calibrated.largest(tensor) > _LIMIT for tensor in (*node.input, *node.output))
    )


class _Halving:
    """One conversion, in place: the nodes called ``halved`` compute in fp16."""

    def __init__(self, model: onnx.ModelProto, halved: frozenset[str]) -> None:
        self._graph = model.graph
        self._halved = halved
        self._weights = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
        values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
        self._floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._inside = {name for node in model.graph.node if node.name in halved for name in node.output}
        self._made: set[str] = set()

    def run(self) -> None:
        nodes = [new for node in self._graph.node for new in self._convert(node)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        for value in self._graph.value_info:
            if value.name in self._inside:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _convert(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """``node`` with inputs of its own type, and the casts it needs before it."""
        half = node.name in self._halved
        for i, name in enumerate(node.input):
            if name in self._weights:
                if half:
                    node.input[i] = self._half_weight(name)
            elif half != (name in self._inside) and name in self._floats:
                node.input[i] = cast = name + (_HALF if half else _SINGLE)
                if cast not in self._made:
                    self._made.add(cast)
                    to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                    yield helper.make_node("Cast", [name], [cast], name=f"cast_{cast}", to=to)
        yield node

    def _half_weight(self, name: str) -> str:
        half = name + _HALF
        if half not in self._made:
            self._made.add(half)
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and the gate refuses it
                values = numpy_helper.to_array(self._weights[name]).astype(np.float16)
            self._graph.initializer.append(numpy_helper.from_array(values, half))
        return half
