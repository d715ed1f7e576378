"""ONNX files from elsewhere: what is read, and one line for what is not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from export.checkpoints.weight_files import CheckpointError
from export.graphs import foreign_file as onnx_file
from export.graphs.contract import GraphError
from export.graphs.foreign_file import read_onnx
from tests.export.onnx_nets import Net, usual


def refusal(path: Path) -> str:
    with pytest.raises(GraphError) as caught:
        read_onnx(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


def saved(tmp_path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = usual().model()
    change(model)
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("shape", "batch", "size"),
    [
        ((1, 3, 8, 8), 1, 8),
        ((5, 3, 8, 8), 5, 8),
        (("n", 3, 8, 8), None, 8),
        (("n", 3, "h", "w"), None, None),
        ((None, 3, None, None), None, None),
    ],
)
def test_what_a_file_says(tmp_path: Path, shape: tuple[int | str, ...], batch: int | None, size: int | None) -> None:
    path = usual(input_shape=shape, output_shape=(shape[0], 4)).save(tmp_path / "a.onnx")
    file = read_onnx(path)
    assert (file.input, file.output, file.classes, file.opset) == ("pixels", "scores", 4, 17)
    assert (file.batch, file.size) == (batch, size)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.parameters == 6 * 3 * 9 + 6 + 6 * 4 + 4


def test_weights_among_the_inputs_of_older_files(tmp_path: Path) -> None:
    def older(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))

    assert read_onnx(saved(tmp_path, older)).input == "pixels"


@pytest.mark.parametrize("name", ["logits", "output"])
def test_one_of_several_outputs_by_its_name(tmp_path: Path, name: str) -> None:
    model = usual().model(name)
    embedding = model.graph.node[-1].input[0]
    model.graph.output.append(helper.make_tensor_value_info(embedding, TensorProto.FLOAT, [1, 6]))
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_onnx(path).output == name


# Refused for what it is


def test_external_data_is_not_read(tmp_path: Path) -> None:
    def outside(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        external_data_helper.set_external_data(tensor, "/etc/passwd")
        tensor.ClearField("raw_data")

    assert "keeps 'kernel' outside itself" in refusal(saved(tmp_path, outside))


@pytest.mark.parametrize("location", ["../../../../etc/passwd", "weights.bin", ""])
def test_external_data_in_a_constant_is_not_read(tmp_path: Path, location: str) -> None:
    def outside(model: onnx.ModelProto) -> None:
        tensor = numpy_helper.from_array(np.zeros(4, np.float32), "bomb")
        external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
        model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))

    assert "keeps 'bomb' outside itself" in refusal(saved(tmp_path, outside))


def test_operators_of_others(tmp_path: Path) -> None:
    def custom(model: onnx.ModelProto) -> None:
        model.graph.node[1].domain = "com.microsoft"
        model.graph.node[1].op_type = "Gelu"
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    assert "operator Gelu is of 'com.microsoft'" in refusal(saved(tmp_path, custom))


def test_control_flow(tmp_path: Path) -> None:
    def loop(model: onnx.ModelProto) -> None:
        body = helper.make_graph([], "body", [], [])
        model.graph.node.append(helper.make_node("Loop", ["", "", "scores"], ["y"], body=body))

    assert "operator Loop holds a graph of its own" in refusal(saved(tmp_path, loop))


def test_functions(tmp_path: Path) -> None:
    def function(model: onnx.ModelProto) -> None:
        model.functions.append(helper.make_function("own", "F", [], [], [], [helper.make_opsetid("", 17)]))

    assert "inline_local_functions" in refusal(saved(tmp_path, function))


def test_sparse_weights(tmp_path: Path) -> None:
    def sparse(model: onnx.ModelProto) -> None:
        model.graph.sparse_initializer.append(onnx.SparseTensorProto())

    assert "sparse" in refusal(saved(tmp_path, sparse))


def test_too_many_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_NODES", 2)
    assert "holds 5 nodes" in refusal(usual().save(tmp_path / "a.onnx"))


def test_tensor_out_of_hand(tmp_path: Path) -> None:
    net = Net()
    net.add("Tile", net.constant("times", [1, 1, 2**14, 2**14])).average().flat().gemm()
    message = refusal(net.save(tmp_path / "a.onnx"))
    assert "[1, 6, 65536, 65536]" in message


def test_longer_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_ONNX_BYTES", 100)
    with pytest.raises(CheckpointError, match="100 are the most"):
        read_onnx(usual().save(tmp_path / "a.onnx"))


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff" * 50, b"\x08\x08"])
def test_no_onnx_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    assert "not an ONNX file" in refusal(path)


def test_invalid_graph(tmp_path: Path) -> None:
    def nonsense(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Nonsense"

    assert "not valid ONNX" in refusal(saved(tmp_path, nonsense))


def in_half(model: onnx.ModelProto) -> None:
    """Weights as float16, widened where they are used."""
    for tensor in list(model.graph.initializer):
        model.graph.node.insert(0, helper.make_node("Cast", [f"{tensor.name}16"], [tensor.name], to=TensorProto.FLOAT))
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{tensor.name}16"))


def in_constants(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]


@pytest.mark.parametrize("change", [in_half, in_constants])
def test_weights_are_counted_wherever_they_are(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    assert read_onnx(saved(tmp_path, change)).parameters == 6 * 3 * 9 + 6 + 6 * 4 + 4


def test_no_weights(tmp_path: Path) -> None:
    net = Net(output_shape=(1, 3))
    net.nodes.clear()
    net.add("GlobalAveragePool", source="pixels").flat()
    assert "holds no floating-point weights" in refusal(net.save(tmp_path / "a.onnx"))


# Refused for what it takes and gives


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 8, 8), "has 1 channels|not valid ONNX"),
        ((1, 3, 8, 12), "is 8x12; only squares"),
        ((0, 3, 8, 8), "takes no pixels"),
    ],
)
def test_input_that_is_no_image(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_onnx(usual(input_shape=shape, output_shape=(shape[0], 4)).save(tmp_path / "a.onnx"))


def test_channels_last_is_told(tmp_path: Path) -> None:
    net = Net(input_shape=(1, 8, 8, 3))
    net.nodes[0].input[0] = "planes"
    net.nodes.insert(0, helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]))
    message = refusal(net.average().flat().gemm().save(tmp_path / "a.onnx"))
    assert "has 8 channels in second place, not 3; it seems to take [batch, height, width, 3]" in message


def test_half_precision_input(tmp_path: Path) -> None:
    def half(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = "wide"
        model.graph.node.insert(0, helper.make_node("Cast", ["pixels"], ["wide"], to=TensorProto.FLOAT))
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16

    assert "input 'pixels' is no float32" in refusal(saved(tmp_path, half))


def test_two_inputs(tmp_path: Path) -> None:
    def second(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))

    assert "takes 2 inputs" in refusal(saved(tmp_path, second))


def test_outputs_that_are_no_scores(tmp_path: Path) -> None:
    maps = Net(output_shape=(1, 6, 4, 4))
    assert "which output holds the logits is not clear: scores [1, 6, 4, 4]" in refusal(maps.save(tmp_path / "a.onnx"))


def test_one_output_is_no_classifier(tmp_path: Path) -> None:
    net = Net(output_shape=(1, 1)).average().flat()
    net.weights["weight"] = np.ones((6, 1), np.float32)
    assert "output 'scores': one output is a yes or no" in refusal(
        net.add("MatMul", "weight").save(tmp_path / "a.onnx")
    )


def test_two_outputs_that_may_be_meant(tmp_path: Path) -> None:
    def second(model: onnx.ModelProto) -> None:
        embedding = model.graph.node[-1].input[0]
        model.graph.output.append(helper.make_tensor_value_info(embedding, TensorProto.FLOAT, [1, 6]))

    assert "scores [1, 4], x3 [1, 6]; name it 'logits'" in refusal(saved(tmp_path, second))


@given(data=st.data())
def test_damaged_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(usual().model().SerializeToString())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        file = read_onnx(path)
    except GraphError as error:
        message = str(error)
    else:
        message = ""
        assert file.classes > 0
    assert "\n" not in message
