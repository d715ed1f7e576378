"""What may change its arithmetic, and under which names a person finds it."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from export.graphs.feature_nodes import feature_nodes, layers
from tests.export import colours


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return colours.calibrated().model


def test_convolutions_sums_and_shortcuts_compute_feature_maps(model: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in feature_nodes(model)]
    assert kinds.count("Conv") == 5
    assert kinds.count("Add") == 2
    assert set(kinds) == {"Conv", "Relu", "Add", "Slice", "Pad"}


def test_preprocessing_pooling_head_and_maps_do_not(model: onnx.ModelProto) -> None:
    inside = {node.name for node in feature_nodes(model)}
    outside = {node.op_type for node in model.graph.node if node.name not in inside}
    assert outside == {"Cast", "Sub", "Div", "Transpose", "ReduceMean", "Gemm", "TopK", "Gather", "Reshape", "MatMul"}


def test_layers_have_the_weights_names(model: onnx.ModelProto) -> None:
    found = layers(feature_nodes(model))
    assert [layer.name for layer in found] == [
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
        "Add behind layer1.0.conv2",
        "layer2.0.conv1",
        "layer2.0.conv2",
        "Add behind layer2.0.conv2",
    ]


def test_a_layer_has_the_activation_that_belongs_to_it(model: onnx.ModelProto) -> None:
    kinds = {node.name: node.op_type for node in model.graph.node}
    found = {layer.name: [kinds[node] for node in layer.nodes] for layer in layers(feature_nodes(model))}
    assert found["layer1.0.conv1"] == ["Conv", "Relu"]
    assert found["layer1.0.conv2"] == ["Conv"]
    assert found["Add behind layer2.0.conv2"] == ["Add", "Relu"]


def tensor(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_the_gate_of_a_squeeze_block_is_no_feature_map() -> None:
    """Its maps are of one pixel; what it multiplies is one."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["maps"], "conv"),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"], "pool"),
        helper.make_node("Conv", ["pooled", "v"], ["gate"], "squeeze"),
        helper.make_node("Sigmoid", ["gate"], ["open"], "sigmoid"),
        helper.make_node("Mul", ["maps", "open"], ["scaled"], "scale"),
        helper.make_node("ReduceMean", ["scaled"], ["embedding"], "mean", keepdims=0),
    ]
    small = [tensor(name, "batch", 4, 1, 1) for name in ("pooled", "gate", "open")]
    large = [tensor(name, "batch", 4, 8, 8) for name in ("maps", "scaled")]
    graph = helper.make_graph(
        nodes, "se", [tensor("x", "batch", 3, 8, 8)], [tensor("embedding", "batch", 4)], value_info=[*small, *large]
    )
    assert [node.name for node in feature_nodes(helper.make_model(graph))] == ["conv", "scale"]


def test_an_activation_of_two_layers_belongs_to_none() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "net.a.weight"], ["a"], "one"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["a", "net.b.weight"], ["c"], "two"),
        helper.make_node("Add", ["b", "c"], ["d"], "sum"),
        helper.make_node("Conv", ["d", ""], ["e"], "nameless"),
    ]
    found = layers(nodes)
    assert [(layer.name, layer.nodes) for layer in found] == [
        ("a", ("one",)),
        ("b", ("two",)),
        ("Add behind a", ("sum",)),
        ("nameless", ("nameless",)),
    ]
