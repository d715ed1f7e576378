"""An existing ONNX network as a graph of the service: our preprocessing in front, our outputs behind.

The input becomes ``image``, uint8 ``[batch, height, width, 3]``, normalised in the
graph; a fixed batch is made dynamic; the scores are called ``logits``, and
``embedding`` and ``cam`` are added where the network ends in a linear layer, for
``cam`` behind global average pooling. In between nothing is changed. The
reference to compare with is the file itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from export.graphs.batch_size import free_batch
from export.graphs.contract import BGR, INPUT, Graph, GraphError, Maps, check_graph, map_count, rgb_normalisation
from export.graphs.feature_nodes import name_nodes
from export.graphs.foreign_file import OnnxFile, with_shapes
from export.graphs.head import Head, Linear, find_head
from export.images.image_sets import Pixels
from export.parity import Reference, open_session
from export.preprocessing import normalised
from model_store.manifest import ClassActivationMap, Outputs, Preprocessing

# What the added operators need; an older network is converted, a newer one stays as it is.
MIN_OPSET: Final = 13
_IR_VERSION: Final = 8
# How far the sum of probabilities may be from one.
_SUM: Final = 1e-3
_PREFIX: Final = "net/"
_OURS: Final = "serving/"


def wrap(file: OnnxFile, preprocessing: Preprocessing, maps: Maps = None) -> Graph:
    """``file`` as the service's graph; ``GraphError`` where that cannot be."""
    try:
        return _wrap(file, preprocessing, maps)
    except GraphError as error:
        raise GraphError(f"{file.path}: {error}") from error


def _wrap(file: OnnxFile, preprocessing: Preprocessing, maps: Maps) -> Graph:
    model = compose.add_prefix(_recent(file), _PREFIX)
    if file.batch is not None:
        free_batch(model.graph, with_shapes(model, preprocessing.height, None).graph, _PREFIX + file.input, file.batch)
    model = with_shapes(model, preprocessing.height, "batch")
    head = find_head(model.graph, _PREFIX + file.output)
    outputs = _outputs(file.classes, head, maps)
    network = _named(model.graph, head)
    nodes = [
        *_preprocess(_PREFIX + file.input, preprocessing.channel_order == "bgr"),
        *network,
        *_heads(head, outputs, file.classes),
    ]
    weights = [*model.graph.initializer, *_constants(preprocessing, head, outputs)]
    graph = _graph(nodes, weights, outputs, preprocessing)
    opset = max(file.opset, MIN_OPSET)
    wrapped = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=max(int(file.model.ir_version), _IR_VERSION),
    )
    name_nodes(wrapped.graph)
    check_graph(wrapped, preprocessing, outputs)
    return Graph(wrapped, outputs, opset)


def _recent(file: OnnxFile) -> onnx.ModelProto:
    if file.opset >= MIN_OPSET:
        return file.model
    try:
        return version_converter.convert_version(file.model, MIN_OPSET)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise GraphError(f"opset {file.opset} cannot be converted to {MIN_OPSET}: {reason}; export it anew") from error


def _outputs(classes: int, head: Head, maps: Maps) -> Outputs:
    cam = None
    if head.linear and head.maps:
        cam = ClassActivationMap(k=map_count(classes, maps), height=head.maps[1], width=head.maps[2])
    return Outputs(classes=classes, embedding=head.linear.weight.shape[1] if head.linear else None, cam=cam)


def _named(graph: onnx.GraphProto, head: Head) -> list[onnx.NodeProto]:
    """The nodes that make the logits, which get their name."""
    producers = {name: node for node in graph.node for name in node.output}
    needed, waiting = set[str](), [head.logits]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.output[0] not in needed:
            needed.add(node.output[0])
            waiting += node.input
    nodes = [node for node in graph.node if node.output[0] in needed]
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = ["logits" if name == head.logits else name for name in names]
        node.doc_string = ""
        del node.metadata_props[:]
    return nodes


def _preprocess(target: str, bgr: bool) -> Iterator[onnx.NodeProto]:
    """uint8 RGB pixels to what the network takes."""
    yield helper.make_node("Cast", [INPUT], [f"{_OURS}float"], to=TensorProto.FLOAT)
    yield helper.make_node("Sub", [f"{_OURS}float", f"{_OURS}mean"], [f"{_OURS}centred"])
    yield helper.make_node("Div", [f"{_OURS}centred", f"{_OURS}std"], [f"{_OURS}scaled"])
    planes = f"{_OURS}planes" if bgr else target
    yield helper.make_node("Transpose", [f"{_OURS}scaled"], [planes], perm=[0, 3, 1, 2])
    if bgr:
        yield helper.make_node("Gather", [planes, f"{_OURS}order"], [target], axis=1)


def _heads(head: Head, outputs: Outputs, classes: int) -> Iterator[onnx.NodeProto]:
    """``embedding`` and the maps of the top classes, as in ``export.graphs.serving_graph``."""
    if head.linear is None:
        return
    yield helper.make_node("Flatten", [head.linear.embedding], ["embedding"], axis=1)
    if outputs.cam is None or head.maps is None:
        return
    yield helper.make_node("TopK", ["logits", f"{_OURS}k"], [f"{_OURS}scores", f"{_OURS}top"], axis=1)
    yield helper.make_node("Gather", [f"{_OURS}weight", f"{_OURS}top"], [f"{_OURS}weights"], axis=0)
    # A 0 keeps the dimension that is there: the batch.
    yield helper.make_node("Reshape", [head.maps[0], f"{_OURS}flat"], [f"{_OURS}features"])
    yield helper.make_node("MatMul", [f"{_OURS}weights", f"{_OURS}features"], [f"{_OURS}maps"])
    yield helper.make_node("Reshape", [f"{_OURS}maps", f"{_OURS}square"], ["cam"])


def _constants(preprocessing: Preprocessing, head: Head, outputs: Outputs) -> Iterator[TensorProto]:
    mean, std = rgb_normalisation(preprocessing)
    yield numpy_helper.from_array(mean, f"{_OURS}mean")
    yield numpy_helper.from_array(std, f"{_OURS}std")
    yield numpy_helper.from_array(np.array(BGR, np.int64), f"{_OURS}order")
    if head.linear and outputs.cam:
        cam, channels = outputs.cam, head.linear.weight.shape[1]
        yield numpy_helper.from_array(head.linear.weight, f"{_OURS}weight")
        yield numpy_helper.from_array(np.array([cam.k]), f"{_OURS}k")
        yield numpy_helper.from_array(np.array([0, channels, cam.height * cam.width]), f"{_OURS}flat")
        yield numpy_helper.from_array(np.array([0, cam.k, cam.height, cam.width]), f"{_OURS}square")


def _graph(
    nodes: list[onnx.NodeProto], weights: list[TensorProto], outputs: Outputs, preprocessing: Preprocessing
) -> onnx.GraphProto:
    used = {name for node in nodes for name in node.input}
    shapes: dict[str, list[str | int]] = {"logits": ["batch", outputs.classes]}
    if outputs.embedding:
        shapes["embedding"] = ["batch", outputs.embedding]
    if outputs.cam:
        shapes["cam"] = ["batch", outputs.cam.k, outputs.cam.height, outputs.cam.width]
    image = helper.make_tensor_value_info(
        INPUT, TensorProto.UINT8, ["batch", preprocessing.height, preprocessing.width, 3]
    )
    return helper.make_graph(
        nodes,
        "main_graph",
        [image],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        initializer=[weight for weight in weights if weight.name in used],
    )


@dataclass(frozen=True)
class _Expected:
    """What the file is asked for: its outputs' names, and the head to make maps with."""

    names: list[str]
    linear: Linear | None
    maps: str | None


def file_reference(file: OnnxFile, preprocessing: Preprocessing) -> Callable[[Pixels], Reference]:
    """The file as it came, in ONNX Runtime on the CPU, with a normalisation of its own in front.

    Its only change is that tensors within it are given out too: what an embedding and maps are made of.
    """
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    wanted = _expected(find_head(with_shapes(model, preprocessing.height, None).graph, file.output))
    there = {output.name for output in model.graph.output}
    for name in wanted.names:
        if name not in there:
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = open_session(model.SerializeToString())

    def run(pixels: Pixels) -> Reference:
        images = normalised(pixels, preprocessing)
        parts = [session.run(wanted.names, {file.input: part}) for part in _batches(images, file.batch)]
        values = dict(
            zip(wanted.names, (np.concatenate(part)[: len(images)] for part in zip(*parts, strict=True)), strict=True)
        )
        logits = values[wanted.names[0]]
        if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, rtol=0, atol=_SUM):
            raise GraphError(
                f"{file.path}: {file.output!r} gives probabilities, of which the service would take the softmax "
                "once more: export the network without its softmax"
            )
        if wanted.linear is None:
            return Reference(logits, None, None, None)
        embedding = values[wanted.linear.embedding].reshape(len(images), -1)
        if wanted.maps is None:
            return Reference(logits, embedding, None, None)
        maps = np.einsum("kc,nchw->nkhw", wanted.linear.weight, values[wanted.maps])
        return Reference(logits, embedding, maps, wanted.linear.bias)

    return run


def _expected(head: Head) -> _Expected:
    maps = head.maps[0] if head.maps else None
    names = [head.logits, head.linear.embedding if head.linear else None, maps]
    # Some tensors may be the same one.
    return _Expected(list(dict.fromkeys(name for name in names if name is not None)), head.linear, maps)


def _batches(images: np.ndarray, batch: int | None) -> Iterator[np.ndarray]:
    """``images`` as many at a time as the file takes; the last are repeated where they are too few."""
    if batch is None:
        yield images
        return
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        yield part[np.arange(batch) % len(part)]
