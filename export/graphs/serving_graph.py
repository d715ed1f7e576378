"""The network as one ONNX graph, its preprocessing inside.

Input ``image``: uint8 ``[batch, height, width, 3]``, RGB; only the batch is
dynamic. Outputs: ``logits`` ``[batch, classes]``; ``embedding`` ``[batch, D]``,
the pooled features; ``cam`` ``[batch, k, h, w]``, the class activation maps of
the top ``k`` classes by descending logit (Zhou et al., "Learning Deep Features
for Discriminative Localization", 2015, https://arxiv.org/abs/1512.04150). The
maps are exact: the mean over h and w plus the head's bias is the logit.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, checker, shape_inference
from torch import Tensor, nn

from export.errors import ExportError
from export.networks.classifier import Classifier
from model_store.manifest import ClassActivationMap, Outputs, Preprocessing

OPSET: Final = 20
# How many classes have a map: so many, "all", or None: all of up to 100 classes, else the 10 best.
Maps = int | Literal["all"] | None
_ALL_MAPS_UP_TO: Final = 100
_SOME_MAPS: Final = 10
INPUT: Final = "image"
OUTPUTS: Final = ("logits", "embedding", "cam")
# Where a network's channels lie in the graph's RGB, if it takes them the other way round.
BGR: Final = (2, 1, 0)

Dimensions = tuple[int | str, ...]


class GraphError(ExportError):
    """The graph cannot be made, or is not what the service expects."""


@dataclass(frozen=True)
class Graph:
    """A checked ONNX model and what the manifest says of it."""

    model: onnx.ModelProto
    outputs: Outputs
    opset: int

    def save(self, path: Path) -> None:
        """Write the one file, weights and all."""
        path.write_bytes(self.model.SerializeToString())


def map_count(classes: int, maps: Maps) -> int:
    """How many class activation maps a network of so many classes gets."""
    if maps is None:
        maps = "all" if classes <= _ALL_MAPS_UP_TO else _SOME_MAPS
    return classes if maps == "all" else min(maps, classes)


def rgb_normalisation(preprocessing: Preprocessing) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation of 0..255 pixels in the order of the graph's input: float32 ``[3]`` each.

    Of 0..255 pixels, which saves the graph a division: (x/255 - m)/s = (x - 255m)/(255s).
    """
    step = -1 if preprocessing.channel_order == "bgr" else 1
    mean, std = (np.array(values[::step], np.float32) for values in (preprocessing.mean, preprocessing.std))
    return 255 * mean, 255 * std


class ServingGraph(nn.Module):
    """Pixels to logits, embedding and the top ``k`` class activation maps."""

    mean: Tensor
    std: Tensor
    order: Tensor | None

    def __init__(self, net: Classifier, preprocessing: Preprocessing, k: int) -> None:
        super().__init__()
        self.net = net
        self.k = k
        mean, std = rgb_normalisation(preprocessing)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("std", torch.from_numpy(std))
        self.register_buffer("order", torch.tensor(BGR) if preprocessing.channel_order == "bgr" else None)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = (image.to(torch.float32) - self.mean) / self.std
        x = x.permute(0, 3, 1, 2)
        if self.order is not None:
            x = x.index_select(1, self.order)
        features = self.net.features(x)
        embedding = features.mean(dim=(2, 3))
        logits = self.net.fc(embedding)
        top = torch.topk(logits, self.k, dim=1).indices
        # A flat index makes a plain Gather in ONNX; weight[top] makes a GatherND, which fewer providers run.
        weights = self.net.fc.weight.index_select(0, top.flatten()).reshape(-1, self.k, embedding.shape[1])
        maps = torch.matmul(weights, features.flatten(2))
        return logits, embedding, maps.reshape(-1, self.k, *features.shape[2:])


def export_graph(net: Classifier, preprocessing: Preprocessing, maps: Maps = None) -> Graph:
    """``net`` as a checked ONNX graph; ``GraphError`` where that fails."""
    classes = net.fc.out_features
    module = ServingGraph(net, preprocessing, map_count(classes, maps)).eval()
    image = torch.zeros(2, preprocessing.height, preprocessing.width, 3, dtype=torch.uint8)
    with torch.inference_mode():
        _, embedding, cam = module(image)
    k, height, width = cam.shape[1:]
    outputs = Outputs(
        classes=classes,
        embedding=embedding.shape[1],
        cam=ClassActivationMap(k=k, height=height, width=width),
    )
    model = _convert(module, image)
    _strip(model)
    check_graph(model, preprocessing, outputs)
    return Graph(model, outputs, _opset(model))


def _convert(module: ServingGraph, image: Tensor) -> onnx.ModelProto:
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (image,),
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        raise GraphError(f"PyTorch cannot export the network: {error}") from error
    if program is None:
        raise GraphError("PyTorch exported nothing")
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and hints (on standard output, and logged) off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's traces: paths of this machine, and bytes that differ from run to run."""
    graph = model.graph
    parts: tuple[Any, ...] = (model, graph, *graph.node, *graph.value_info, *graph.initializer)
    for part in parts:
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def _opset(model: onnx.ModelProto) -> int:
    return next(int(opset.version) for opset in model.opset_import if opset.domain in ("", "ai.onnx"))


def check_graph(model: onnx.ModelProto, preprocessing: Preprocessing, outputs: Outputs) -> None:
    """``GraphError`` unless ``model`` is valid ONNX in one piece with the inputs and outputs of this page."""
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError, ValueError) as error:
        raise GraphError(f"the exported graph is not valid ONNX: {error}") from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise GraphError("the exported graph keeps weights outside its file")
    expected: dict[str, tuple[int, Dimensions]] = {
        INPUT: (TensorProto.UINT8, ("batch", preprocessing.height, preprocessing.width, 3)),
        "logits": (TensorProto.FLOAT, ("batch", outputs.classes)),
    }
    if outputs.embedding:
        expected["embedding"] = (TensorProto.FLOAT, ("batch", outputs.embedding))
    if outputs.cam:
        expected["cam"] = (TensorProto.FLOAT, ("batch", outputs.cam.k, outputs.cam.height, outputs.cam.width))
    found = _signature([*model.graph.input, *model.graph.output])
    if found != expected:
        raise GraphError(f"the exported graph has {found}; the service expects {expected}")


def _signature(values: Sequence[onnx.ValueInfoProto]) -> dict[str, tuple[int, Dimensions]]:
    """Element type and dimensions of each of ``values``, by name."""
    signature: dict[str, tuple[int, Dimensions]] = {}
    for value in values:
        tensor = value.type.tensor_type
        dimensions = tuple(d.dim_param or int(d.dim_value) for d in tensor.shape.dim)
        signature[value.name] = (tensor.elem_type, dimensions)
    return signature
