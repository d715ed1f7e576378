"""An int8 graph from an fp32 one: static quantization in the QDQ format.

Calibration runs images through the fp32 graph and notes the range of every
feature map; then each convolution gets weights of int8, a scale a channel, and
its maps become uint8. That pair runs as integer convolutions on ONNX Runtime's
CPU provider and on OpenVINO. Preprocessing, pooling, head and class activation
maps stay fp32 (``export.graphs.feature_nodes``).

Documents: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html;
Migacz, "8-bit Inference with TensorRT", 2017, for entropy.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod as Calibrator
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationDataReader, TensorsData, create_calibrator
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.errors import ExportError
from export.graphs.contract import INPUT
from export.graphs.feature_nodes import Layer, feature_nodes, layers, name_nodes
from export.images.image_sets import Pixels
from export.images.subsets import batches
from model_store.reports import CalibrationMethod

# What runs on integers on the CPU provider and OpenVINO; ReLU is absorbed by what comes before it.
QUANTIZED_OPS: Final = ("Conv", "Add", "Mul", "Relu", "Clip", "Concat", "MaxPool", "AveragePool", "Slice", "Pad")
# The calibrators keep every feature map of a batch: at 224x224 those of one image take up to half a gigabyte.
_BATCH_PIXELS: Final = 16 * 1024


class QuantizeError(ExportError):
    """The network cannot be quantized; the message says why."""


@dataclass(frozen=True)
class _Method:
    """ONNX Runtime's calibrator and its options."""

    calibrator: Calibrator
    options: Mapping[str, Any]


METHODS: Final[Mapping[CalibrationMethod, _Method]] = MappingProxyType(
    {
        "minmax": _Method(Calibrator.MinMax, {}),
        # The library's own 128 bins; of more, its search cuts off half of the range, and answers change by the dozen.
        "entropy": _Method(Calibrator.Entropy, {}),
        # A symmetric range would leave half of the 256 levels unused behind a ReLU.
        "percentile": _Method(Calibrator.Percentile, {"num_bins": 2048, "percentile": 99.999, "symmetric": False}),
    }
)


@dataclass(frozen=True)
class Calibrated:
    """An fp32 graph, the ranges of its feature maps, and the nodes that compute them.

    ``model`` has all shapes and its normalisations folded. ``layers`` are in the graph's order.
    """

    model: onnx.ModelProto
    ranges: Any
    nodes: tuple[str, ...]
    layers: tuple[Layer, ...]

    def largest(self, tensor: str) -> float:
        """The largest magnitude seen of a feature map; 0 for what was not calibrated."""
        if tensor not in self.ranges.keys():  # noqa: SIM118 - the library's class has no __contains__
            return 0.0
        return float(max(np.abs(end).max() for end in self.ranges[tensor].range_value))


def quantized(calibrated: Calibrated, float_nodes: frozenset[str] = frozenset()) -> onnx.ModelProto:
    """The int8 graph, with ``float_nodes`` kept in fp32; ``QuantizeError`` where that fails."""
    model = onnx.ModelProto()
    model.CopyFrom(calibrated.model)
    kinds = {node.name: node.op_type for node in model.graph.node}
    wanted = [name for name in calibrated.nodes if name not in float_nodes and kinds[name] in QUANTIZED_OPS]
    if not wanted:
        raise QuantizeError("nothing is left to quantize: all layers are kept float")
    try:
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=calibrated.ranges,
            nodes_to_quantize=wanted,
            nodes_to_exclude=[],
            op_types_to_quantize=list(QUANTIZED_OPS),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    except Exception as error:  # the library raises whatever its parts raise
        raise QuantizeError(f"the network cannot be quantized: {error}") from error
    made: onnx.ModelProto = quantizer.model.model
    tidy(made)
    return made


def calibrate(file: Path, method: CalibrationMethod, images: Iterable[Pixels]) -> Calibrated:
    """The ranges of ``file``'s feature maps on ``images``, uint8 ``[height, width, 3]`` each.

    ``QuantizeError`` where the graph has no convolution or a normalisation that was not folded.
    """
    model = _prepare(file)
    nodes = feature_nodes(model)
    if not any(node.op_type == "Conv" for node in nodes):
        raise QuantizeError(f"{file.name}: the graph has no convolution: there is nothing to quantize")
    try:
        ranges = _ranges(model, METHODS[method], sorted({node.op_type for node in nodes}), images)
    except ExportError:  # an image that cannot be read
        raise
    except Exception as error:  # the library raises whatever its parts raise
        raise QuantizeError(f"calibration failed: {error}") from error
    if not isinstance(ranges, TensorsData):
        raise QuantizeError("there is no image to calibrate with")
    return Calibrated(model, ranges, tuple(node.name for node in nodes), tuple(layers(nodes)))


def _ranges(model: onnx.ModelProto, method: _Method, operators: list[str], images: Iterable[Pixels]) -> Any:
    with tempfile.TemporaryDirectory(prefix="calibrate-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        onnx.save(model, prepared)
        with _quiet():
            calibrator = create_calibrator(
                prepared,
                operators,
                str(Path(folder) / "augmented.onnx"),
                method.calibrator,
                extra_options=dict(method.options),
            )
        for batch in batches(images, _BATCH_PIXELS):
            with _quiet():
                calibrator.collect_data(_One(batch))
        with _quiet():
            return calibrator.compute_data()


def _quiet() -> contextlib.AbstractContextManager[io.StringIO]:
    """Keeps the library's own progress off standard output."""
    return contextlib.redirect_stdout(io.StringIO())


def _prepare(file: Path) -> onnx.ModelProto:
    """``file`` with all shapes known and every normalisation folded into its convolution; else ``QuantizeError``."""
    with tempfile.TemporaryDirectory(prefix="prepare-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            # Symbolic shape inference is for transformers; these graphs have all shapes but the batch.
            quant_pre_process(file, prepared, skip_symbolic_shape=True)
            model: onnx.ModelProto = load_model_with_shape_infer(prepared)
        except Exception as error:  # the library raises whatever its parts raise
            raise QuantizeError(f"{file.name}: cannot be prepared for quantization: {error}") from error
    name_nodes(model.graph)
    if left := _not_folded(model):
        raise QuantizeError(f"{file.name}: the normalisation {left[0]} was not folded into its convolution")
    return model


def _not_folded(model: onnx.ModelProto) -> list[str]:
    """Normalisations of a convolution's output that nothing else consumes: folding is possible, and needed."""
    convolved = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    consumers = Counter(name for node in model.graph.node for name in node.input)
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "BatchNormalization" and node.input[0] in convolved and consumers[node.input[0]] == 1
    ]


class _One(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """One batch, then no more: so the calibrator keeps the maps of one batch only."""

    def __init__(self, pixels: Pixels) -> None:
        self._next: dict[str, Pixels] | None = {INPUT: pixels}

    def get_next(self) -> dict[str, Pixels] | None:
        found, self._next = self._next, None
        return found


def tidy(model: onnx.ModelProto) -> None:
    """Remove what the tools leave in ``model``: operator sets that no node uses, notes to themselves."""
    used = Counter(node.domain for node in model.graph.node)
    kept = [opset for opset in model.opset_import if opset.domain in ("", "ai.onnx") or used[opset.domain]]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    del model.metadata_props[:]
