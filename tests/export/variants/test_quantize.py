"""The int8 graph: what is integer in it, what is not, and that ONNX Runtime runs it as integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graphs.contract import check_graph
from export.images.files import ImagesError
from export.images.image_sets import Pixels
from export.variants import quantize
from export.variants.half import halved
from export.variants.quantize import METHODS, QuantizeError, calibrate, quantized
from model_store.reports import CalibrationMethod
from tests.export import colours
from tests.export.conftest import TINY_INPUT


@pytest.fixture(scope="module")
def int8() -> onnx.ModelProto:
    return quantized(colours.calibrated())


@pytest.fixture
def fp32(tmp_path: Path) -> Path:
    return colours.save(tmp_path)


def logits(model: onnx.ModelProto, pixels: Pixels) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": pixels})[0])


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def test_it_is_what_the_service_expects(int8: onnx.ModelProto) -> None:
    check_graph(int8, TINY_INPUT, colours.graph().outputs)
    assert [(opset.domain, opset.version) for opset in int8.opset_import] == [("", colours.graph().opset)]
    assert not int8.metadata_props


def test_weights_are_int8_a_scale_a_channel_and_maps_uint8(int8: onnx.ModelProto) -> None:
    made = producers(int8)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    convolutions = [node for node in int8.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 5
    for node in convolutions:
        maps, weight = made[node.input[0]], made[node.input[1]]
        assert (maps.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert weights[maps.input[2]].dtype == np.uint8
        assert weights[weight.input[0]].dtype == np.int8
        assert not weights[weight.input[2]].any(), "the zero point of the weights must be zero"
        assert weights[weight.input[1]].shape == weights[weight.input[0]].shape[:1]


def test_the_head_and_what_is_before_the_network_stay_float(int8: onnx.ModelProto) -> None:
    made = producers(int8)
    names = {tensor.name for tensor in int8.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    (head,) = [node for node in int8.graph.node if node.op_type == "Gemm"]
    assert set(head.input[1:]) <= names
    assert made[head.input[0]].op_type == "ReduceMean"
    (maps,) = [node for node in int8.graph.node if node.op_type == "MatMul"]
    assert all(made[name].op_type == "Reshape" for name in maps.input)
    for kind in ("Sub", "Div"):
        (node,) = [node for node in int8.graph.node if node.op_type == kind]
        assert made[node.input[0]].op_type in ("Cast", "Sub")


def test_onnx_runtime_runs_it_as_integers(int8: onnx.ModelProto, tmp_path: Path) -> None:
    """No float convolution, sum or ReLU is left: nothing is dequantized between two of them."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(int8.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert (kinds["QLinearConv"], kinds["QLinearAdd"]) == (5, 2)
    assert not {"Conv", "FusedConv", "Add", "Relu"} & set(kinds)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_nearly_fp32s_logits(method: CalibrationMethod) -> None:
    pixels = np.stack(list(colours.IMAGES.read()))
    expected = logits(colours.graph().model, pixels)
    found = logits(quantized(colours.calibrated(method)), pixels)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 0.1 * expected.std()


def test_the_same_calibration_gives_the_same_file(int8: onnx.ModelProto) -> None:
    assert quantized(colours.calibrated()).SerializeToString() == int8.SerializeToString()


def test_layers_can_be_kept_float(int8: onnx.ModelProto) -> None:
    calibrated = colours.calibrated()
    (layer,) = [layer for layer in calibrated.layers if layer.name == "layer1.0.conv1"]
    mixed = quantized(calibrated, frozenset(layer.nodes))
    made = producers(mixed)
    kept = {node.name for node in mixed.graph.node if node.op_type == "Conv" and node.input[1] not in made}
    assert kept == {layer.nodes[0]}


def test_something_must_be_left() -> None:
    calibrated = colours.calibrated()
    with pytest.raises(QuantizeError, match="nothing is left"):
        quantized(calibrated, frozenset(calibrated.nodes))


@pytest.mark.parametrize("method", METHODS)
def test_calibration_sees_every_image_but_few_at_once(
    fp32: Path, method: CalibrationMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibrators keep all feature maps of what they are given."""
    sizes: list[int] = []
    real = quantize._One

    def one(pixels: Pixels) -> quantize._One:
        sizes.append(len(pixels))
        return real(pixels)

    monkeypatch.setattr(quantize, "_One", one)
    monkeypatch.setattr(quantize, "_BATCH_PIXELS", 16 * 16 * 5)
    calibrate(fp32, method, colours.CALIBRATION.read())
    assert sizes == [5, 5, 5, 5, 4]


def test_ranges_grow_with_the_images(fp32: Path) -> None:
    """The ranges are of all images, not of the last batch."""
    images = list(colours.CALIBRATION.read())
    name = colours.calibrated().model.graph.node[-1].output[0]
    few, many = (calibrate(fp32, "minmax", found) for found in (images[:1], images))
    tensors = [tensor for tensor in many.ranges.keys() if tensor != name]  # noqa: SIM118
    assert all(many.largest(tensor) >= few.largest(tensor) for tensor in tensors)
    assert any(many.largest(tensor) > few.largest(tensor) for tensor in tensors)
    assert many.largest("no such tensor") == 0


def test_nothing_is_printed(fp32: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quantized(calibrate(fp32, "percentile", colours.CALIBRATION.read()))
    assert capfd.readouterr() == ("", "")


# What cannot be quantized


@pytest.mark.parametrize("method", METHODS)
def test_no_images(fp32: Path, method: CalibrationMethod) -> None:
    with pytest.raises(QuantizeError, match=r"no image|calibration failed"):
        calibrate(fp32, method, [])


def test_an_image_that_cannot_be_read_is_told_as_such(fp32: Path) -> None:
    def broken() -> Iterator[Pixels]:
        yield next(colours.CALIBRATION.read())
        raise ImagesError("cat/1.png: cannot be decoded")

    with pytest.raises(ImagesError, match=r"cat/1\.png"):
        calibrate(fp32, "minmax", broken())


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "junk.onnx").write_bytes(content)
    with pytest.raises(QuantizeError, match=r"junk\.onnx") as caught:
        calibrate(tmp_path / "junk.onnx", "minmax", colours.CALIBRATION.read())
    assert "\n" not in str(caught.value).strip()


def a_graph(*nodes: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 16, 16, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


CAST = helper.make_node("Cast", ["image"], ["x"], "cast", to=TensorProto.FLOAT)


def test_a_network_without_convolutions(tmp_path: Path) -> None:
    model = a_graph(CAST, helper.make_node("ReduceMean", ["x"], ["logits"], "mean", keepdims=0))
    onnx.save(model, tmp_path / "flat.onnx")
    with pytest.raises(QuantizeError, match="no convolution"):
        calibrate(tmp_path / "flat.onnx", "minmax", colours.CALIBRATION.read())


def a_normalised() -> onnx.ModelProto:
    ones = np.ones(4, np.float32)
    return a_graph(
        CAST,
        helper.make_node("Transpose", ["x"], ["y"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["y", "w"], ["maps"], "conv"),
        helper.make_node(
            "BatchNormalization",
            ["maps", "scale", "bias", "mean", "var"],
            ["normal"],
            "norm",
        ),
        helper.make_node("Relu", ["normal"], ["z"], "relu"),
        helper.make_node("ReduceMean", ["z", "axes"], ["logits"], "mean", keepdims=0),
        w=np.full((4, 3, 3, 3), 0.1, np.float32),
        scale=2 * ones,
        bias=ones,
        mean=ones,
        var=ones,
        axes=np.array([2, 3]),
    )


def test_normalisations_are_folded_into_the_convolutions(tmp_path: Path) -> None:
    onnx.save(a_normalised(), tmp_path / "bn.onnx")
    kinds = {
        node.op_type for node in calibrate(tmp_path / "bn.onnx", "minmax", colours.CALIBRATION.read()).model.graph.node
    }
    assert "Conv" in kinds
    assert "BatchNormalization" not in kinds


def test_nodes_without_names_are_quantized(tmp_path: Path) -> None:
    model = a_normalised()
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, tmp_path / "nameless.onnx")
    calibrated = calibrate(tmp_path / "nameless.onnx", "minmax", colours.CALIBRATION.read())
    assert "QuantizeLinear" in {node.op_type for node in quantized(calibrated).graph.node}
    casts = [node for node in halved(calibrated).graph.node if node.op_type == "Cast"]
    assert [node.input[0] for node in casts[:1]] == ["image"]


def test_a_normalisation_that_cannot_be_folded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(a_normalised(), tmp_path / "bn.onnx")

    def copied(source: Path, target: Path, **_: object) -> None:
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(quantize, "quant_pre_process", copied)
    with pytest.raises(QuantizeError, match="the normalisation norm was not folded"):
        calibrate(tmp_path / "bn.onnx", "minmax", colours.CALIBRATION.read())
