"""Makes the batch of an ONNX network dynamic where it was fixed at export.

The number of images stands in the input's shape and, as a constant, where the
network reshapes. Such a constant becomes the operator's own way to say "as it
is". What else depends on it shows when the network runs with other numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from export.graphs.contract import GraphError
from export.graphs.head import GraphView


def free_batch(graph: onnx.GraphProto, shaped: onnx.GraphProto, image: str, batch: int) -> None:
    """Rewrite ``graph`` for any number of images; ``shaped`` is the same with the shapes for ``batch`` of them."""
    view = GraphView(shaped)
    depends = _dependent(graph, image)
    for number, node in enumerate(graph.node):
        if node.op_type not in ("Reshape", "Expand") or node.input[0] not in depends:
            continue
        target = view.constant(node.input[1])
        shape = view.shape(node.input[0])
        if target is None or target.ndim != 1 or len(target) == 0 or not shape or shape[0] != batch:
            continue
        if int(target[0]) != batch:
            continue
        values = target.astype(np.int64)
        values[0] = _as_it_is(node, values)
        name = f"{node.input[1]}/any_batch_{number}"
        graph.initializer.append(numpy_helper.from_array(values, name))
        node.input[1] = name


def _dependent(graph: onnx.GraphProto, image: str) -> set[str]:
    """Every tensor that is made of the image; nodes are in the order they run."""
    found = {image}
    for node in graph.node:
        if found.intersection(node.input):
            found.update(node.output)
    return found


def _as_it_is(node: onnx.NodeProto, shape: npt.NDArray[np.int64]) -> int:
    """What stands for the first dimension of the input in the constant of ``node``."""
    if node.op_type == "Expand":
        return 1
    if 0 in shape[1:]:
        raise GraphError(f"operator Reshape {node.name!r} fixes the batch in a way that cannot be changed")
    # With it, a 0 would mean no images at all.
    kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return 0
