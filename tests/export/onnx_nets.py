"""Small ONNX networks by hand: every way a classifier may end, any operator set, any batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, CLASSES = 6, 4
Shape = Sequence[int | str | None]


def _random(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


KERNEL, BIAS = _random(CHANNELS, 3, 3, 3, seed=0) * 0.3, _random(CHANNELS, seed=1)
WEIGHT, HEAD_BIAS = _random(CLASSES, CHANNELS, seed=2), _random(CLASSES, seed=3)


@dataclass
class Net:
    """A convolution with stride 2 and what follows it, one node after another."""

    opset: int = 17
    input_shape: Shape = (1, 3, 8, 8)
    output_shape: Shape = (1, CLASSES)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    output: str = "x"

    def __post_init__(self) -> None:
        self.weights |= {"kernel": KERNEL, "bias": BIAS}
        self.add("Conv", "kernel", "bias", source="pixels", strides=[2, 2], pads=[1, 1, 1, 1])
        self.add("Relu")

    def constant(self, name: str, value: object, dtype: type = np.int64) -> str:
        self.weights[name] = np.array(value, dtype)
        return name

    def add(self, op: str, *others: str, source: str | None = None, **attributes: object) -> Net:
        """A node on the last one's output and ``others``."""
        target = f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [source or self.output, *others], [target], name=target, **attributes))
        self.output = target
        return self

    def average(self) -> Net:
        return self.add("GlobalAveragePool")

    def flat(self) -> Net:
        return self.add("Flatten", axis=1)

    def gemm(self) -> Net:
        self.weights |= {"weight": WEIGHT, "head": HEAD_BIAS}
        return self.add("Gemm", "weight", "head", transB=1)

    def model(self, name: str = "scores") -> onnx.ModelProto:
        self.nodes[-1].output[0] = name
        image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, self.input_shape)
        scores = helper.make_tensor_value_info(name, TensorProto.FLOAT, self.output_shape)
        used = {name for node in self.nodes for name in node.input}
        weights = [numpy_helper.from_array(value, key) for key, value in self.weights.items() if key in used]
        graph = helper.make_graph(self.nodes, "net", [image], [scores], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path


def usual(**fields: object) -> Net:
    """Convolution, ReLU, global average, linear layer."""
    return Net(**fields).average().flat().gemm()  # type: ignore[arg-type]
