"""What the service expects of an ONNX graph, and how that is checked; without PyTorch, which variants do not need.

Input ``image``: uint8 ``[batch, height, width, 3]``, RGB; only the batch is
dynamic. Outputs: ``logits`` ``[batch, classes]``; ``embedding`` ``[batch, D]``,
the pooled features; ``cam`` ``[batch, k, h, w]``, the class activation maps of
the top ``k`` classes by descending logit (Zhou et al., "Learning Deep Features
for Discriminative Localization", 2015, https://arxiv.org/abs/1512.04150). The
maps are exact: the mean over h and w plus the head's bias is the logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, checker, shape_inference

from export.errors import ExportError
from model_store.manifest import Outputs, Preprocessing

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
