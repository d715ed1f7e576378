"""The constants that hold a batch, and those that only look like it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.graphs.batch_size import free_batch
from export.graphs.contract import GraphError
from export.graphs.foreign_file import with_shapes
from tests.export.onnx_nets import CHANNELS, Net


def freed(net: Net, batch: int) -> dict[str, list[int]]:
    """The shape constants of each node that has one, after rewriting."""
    model = net.model()
    free_batch(model.graph, with_shapes(model, 8, None).graph, "pixels", batch)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        node.name: values[node.input[1]].tolist() for node in model.graph.node if node.op_type in ("Reshape", "Expand")
    }


def net_of(batch: int) -> Net:
    return Net(input_shape=(batch, 3, 8, 8), output_shape=(batch, CHANNELS))


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_reshape_keeps_what_is_there(batch: int) -> None:
    net = net_of(batch).average()
    net.add("Reshape", net.constant("shape", [batch, CHANNELS]))
    assert freed(net, batch) == {"x3": [0, CHANNELS]}


def test_constant_that_two_operators_share() -> None:
    """One reshapes the image's maps, the other a weight, which has no batch."""
    net = net_of(1)
    shape = net.constant("shape", [1, CHANNELS, -1, 1])
    net.add("Reshape", shape)
    maps = net.output
    net.weights["table"] = np.zeros((CHANNELS, 1), np.float32)
    net.add("Reshape", shape, source="table")
    net.add("Add", maps)
    assert freed(net, 1) == {"x2": [0, CHANNELS, -1, 1], "x3": [1, CHANNELS, -1, 1]}


def test_expand_gets_a_one_which_it_fits_to_any_batch() -> None:
    net = net_of(3)
    net.add("Expand", net.constant("shape", [3, CHANNELS, 4, 4]))
    assert freed(net, 3) == {"x2": [1, CHANNELS, 4, 4]}


@pytest.mark.parametrize("shape", [[-1, CHANNELS], [CHANNELS, 1], [0, -1]])
def test_shapes_without_the_batch_in_front_stay(shape: list[int]) -> None:
    net = net_of(1).average()
    net.add("Reshape", net.constant("shape", shape))
    assert freed(net, 1) == {"x3": shape}


def test_zero_that_means_none_is_replaced() -> None:
    """``allowzero`` makes a 0 an empty dimension; without it, a 0 keeps the one that is there."""
    net = net_of(1).average()
    net.add("Reshape", net.constant("shape", [1, CHANNELS]), allowzero=1)
    model = net.model()
    free_batch(model.graph, with_shapes(model, 8, None).graph, "pixels", 1)
    assert [attribute.name for attribute in model.graph.node[-1].attribute] == []


def test_shape_that_needs_its_zero_is_refused() -> None:
    net = net_of(1)
    net.weights["kernel"] = np.zeros((CHANNELS, 3, 3, 3), np.float32)
    net.add("Slice", net.constant("from", [0]), net.constant("to", [0]), net.constant("axis", [1]))
    net.add("Reshape", net.constant("shape", [1, 0, 5]), allowzero=1)
    model = net.model()
    shaped = onnx.shape_inference.infer_shapes(model, data_prop=True)
    with pytest.raises(GraphError, match="Reshape 'x3' fixes the batch"):
        free_batch(model.graph, shaped.graph, "pixels", 1)
