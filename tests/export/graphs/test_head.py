"""Ends of networks: what is a linear layer behind global average pooling, and what is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto

from export.errors import ExportError
from export.graphs.foreign_file import with_shapes
from export.graphs.head import Head, find_head
from tests.export.onnx_nets import CHANNELS, CLASSES, HEAD_BIAS, WEIGHT, Net, usual


def head_of(net: Net, size: int = 8) -> Head:
    return find_head(with_shapes(net.model(), size, "batch").graph, "scores")


def matmul(net: Net, *, bias: bool = True, first: bool = False) -> Net:
    net.weights |= {"weight": np.ascontiguousarray(WEIGHT.T), "head": HEAD_BIAS[None]}
    net.add("MatMul", "weight")
    if bias and first:
        product = net.output
        net.add("Add", product, source="head")
    elif bias:
        net.add("Add", "head")
    return net


def conv_head(net: Net) -> Net:
    net.weights |= {"weight": WEIGHT[:, :, None, None], "head": HEAD_BIAS}
    return net.add("Conv", "weight", "head").flat()


def mean(net: Net, axes: list[int], keepdims: int = 1) -> Net:
    net.opset = 18
    return net.add("ReduceMean", net.constant("axes", axes), keepdims=keepdims)


def older_mean(net: Net) -> Net:
    net.opset = 13
    return net.add("ReduceMean", axes=[2, 3], keepdims=0)


def reshaped_to_classes(net: Net) -> Net:
    return net.add("Reshape", net.constant("classes", [-1, CLASSES]))


def clipped(net: Net) -> Net:
    return net.add("Clip", net.constant("low", 1e-7, np.float32))


def halved_and_back(net: Net) -> Net:
    return net.add("Cast", to=TensorProto.FLOAT16).add("Cast", to=TensorProto.FLOAT)


def softmax_of_half() -> Net:
    net = usual().add("Cast", to=TensorProto.FLOAT16).add("Softmax", axis=1)
    return net.add("Cast", to=TensorProto.FLOAT)


def reshaped(net: Net) -> Net:
    return net.average().add("Reshape", net.constant("shape", [-1, CHANNELS]))


FOUND: dict[str, Callable[[], Net]] = {
    "usual": usual,
    "reshape": lambda: reshaped(Net()).gemm(),
    "squeeze": lambda: (net := Net().average()).add("Squeeze", net.constant("axes", [2, 3])).gemm(),
    "dropout": lambda: Net().average().flat().add("Dropout").add("Identity").gemm().add("Identity"),
    "mean": lambda: mean(Net(), [2, 3]).flat().gemm(),
    "mean of the last two": lambda: mean(Net(), [-1, -2], keepdims=0).gemm(),
    "mean of older files": lambda: older_mean(Net()).gemm(),
    "average of the whole": lambda: Net().add("AveragePool", kernel_shape=[4, 4]).flat().gemm(),
    "matmul": lambda: matmul(Net().average().flat()),
    "matmul, the bias first": lambda: matmul(Net().average().flat(), first=True),
    "matmul, no bias": lambda: matmul(Net().average().flat(), bias=False),
    "convolution": lambda: conv_head(Net().average()),
    "softmax": lambda: usual().add("Softmax", axis=1),
    "softmax that is clipped": lambda: clipped(usual().add("Softmax", axis=1)),
    "softmax behind casts": lambda: halved_and_back(usual().add("Softmax", axis=1)),
    "softmax and its logarithm": lambda: usual().add("LogSoftmax", axis=1),
    "softmax behind a reshape": lambda: reshaped_to_classes(usual().add("Softmax", axis=1)),
}


@pytest.mark.parametrize("name", FOUND)
def test_linear_layer_behind_pooling(name: str) -> None:
    head = head_of(FOUND[name]())
    assert head.linear
    np.testing.assert_array_equal(head.linear.weight, WEIGHT)
    np.testing.assert_array_equal(head.linear.bias, np.zeros(CLASSES) if "no bias" in name else HEAD_BIAS)
    assert head.maps == ("x1", 4, 4)
    assert (head.logits == "scores") == (not name.startswith("softmax"))


EMBEDDING_ONLY: dict[str, Callable[[], Net]] = {
    "maximum": lambda: Net().add("GlobalMaxPool").flat().gemm(),
    "something after pooling": lambda: Net().average().add("Sigmoid").flat().gemm(),
    "average of a part": lambda: Net().add("AveragePool", kernel_shape=[3, 3], strides=[4, 4]).flat().gemm(),
    "padded average": lambda: (
        Net().add("AveragePool", kernel_shape=[4, 4], pads=[2, 2, 1, 1], strides=[9, 9]).flat().gemm()
    ),
}


@pytest.mark.parametrize("name", EMBEDDING_ONLY)
def test_linear_layer_behind_something_else(name: str) -> None:
    head = head_of(EMBEDDING_ONLY[name]())
    assert head.linear
    assert head.maps is None


NOT_LINEAR: dict[str, Callable[[], Net]] = {
    "no layer": lambda: Net().average().flat(),
    "scaled": lambda: _scaled(alpha=2.0),
    "a bias that is scaled": lambda: _scaled(beta=0.5),
    "activation behind it": lambda: usual().add("Relu"),
}


def _scaled(**attributes: float) -> Net:
    net = Net().average().flat()
    net.weights |= {"weight": WEIGHT, "head": HEAD_BIAS}
    return net.add("Gemm", "weight", "head", transB=1, **attributes)


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_no_linear_layer(name: str) -> None:
    net = NOT_LINEAR[name]()
    head = head_of(net)
    assert head == Head("scores")


def test_computed_weights_are_no_linear_layer() -> None:
    net = Net().average().flat()
    embedding = net.output
    net.add("Transpose", perm=[1, 0])
    net.add("MatMul", net.output, source=embedding)
    net.output_shape = (1, 1)
    assert head_of(net).linear is None


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (lambda: usual().add("Sigmoid"), "is a Sigmoid"),
        (lambda: reshaped_to_classes(usual().add("Sigmoid")), "is a Sigmoid"),
        (lambda: clipped(usual().add("Sigmoid")), "is a Sigmoid"),
        (lambda: softmax_before_flattening(), "a softmax in another shape"),
        (lambda: softmax_of_half(), "a softmax of half precision"),
    ],
    ids=["sigmoid", "sigmoid behind a reshape", "clipped sigmoid", "softmax of a map", "softmax of halves"],
)
def test_what_are_no_logits_is_refused(net: Callable[[], Net], told: str) -> None:
    with pytest.raises(ExportError, match=told):
        head_of(net())


def softmax_before_flattening() -> Net:
    net = Net().average()
    net.weights |= {"weight": WEIGHT[:, :, None, None], "head": HEAD_BIAS}
    return net.add("Conv", "weight", "head").add("Softmax", axis=1).flat()
