"""The ONNX file's contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, external_data_helper

from export.graphs.contract import Graph, GraphError, Maps, check_graph, map_count
from export.graphs.serving_graph import OPSET, export_graph
from export.networks.resnet import ResNet
from tests.export.conftest import TINY_INPUT


@pytest.fixture(scope="module")
def session(tiny_onnx: Path) -> ort.InferenceSession:
    return ort.InferenceSession(tiny_onnx, providers=["CPUExecutionProvider"])


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_names_types_and_shapes(session: ort.InferenceSession) -> None:
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 16, 16, 3])
    outputs = [(output.name, output.type, output.shape) for output in session.get_outputs()]
    assert outputs == [
        ("logits", "tensor(float)", ["batch", 7]),
        ("embedding", "tensor(float)", ["batch", 16]),
        ("cam", "tensor(float)", ["batch", 7, 8, 8]),
    ]


def test_description_for_the_manifest(tiny_graph: Graph) -> None:
    outputs = tiny_graph.outputs
    assert (outputs.classes, outputs.embedding) == (7, 16)
    assert outputs.cam
    assert (outputs.cam.k, outputs.cam.height, outputs.cam.width) == (7, 8, 8)
    assert tiny_graph.opset == OPSET


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_any_batch_gives_each_image_its_own_result(session: ort.InferenceSession, tiny: ResNet, count: int) -> None:
    images = pixels(count)
    logits, embedding, cam = session.run(None, {"image": images})
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (TINY_INPUT.mean, TINY_INPUT.std))
    with torch.inference_mode():
        expected = tiny((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    assert (embedding.shape, cam.shape) == ((count, 16), (count, 7, 8, 8))


@pytest.mark.parametrize("maps", [1, 3, "all"])
def test_maps_are_of_the_top_classes_and_add_up_to_their_logits(tiny: ResNet, tmp_path: Path, maps: Maps) -> None:
    graph = export_graph(tiny, TINY_INPUT, maps)
    graph.save(tmp_path / "net.onnx")
    session = ort.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    logits, _, cam = session.run(None, {"image": pixels(4)})
    k = 7 if maps == "all" else maps
    assert graph.outputs.cam
    assert (graph.outputs.cam.k, cam.shape) == (k, (4, k, 8, 8))
    top = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    bias = tiny.fc.bias.detach().numpy()
    np.testing.assert_allclose(cam.mean(axis=(2, 3)) + bias[top], np.take_along_axis(logits, top, axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "maps", "count"),
    [
        (2, None, 2),
        (100, None, 100),
        (101, None, 10),
        (1000, None, 10),
        (1000, 5, 5),
        (1000, "all", 1000),
        (3, 5, 3),
    ],
)
def test_how_many_classes_have_maps(classes: int, maps: Maps, count: int) -> None:
    assert map_count(classes, maps) == count


def test_one_file_without_traces_of_the_machine(tiny_graph: Graph, tiny_onnx: Path) -> None:
    assert not any(external_data_helper.uses_external_data(t) for t in tiny_graph.model.graph.initializer)
    assert [path.name for path in tiny_onnx.parent.iterdir()] == [tiny_onnx.name]
    assert str(Path(__file__).parents[3]).encode() not in tiny_onnx.read_bytes()


def test_export_is_reproducible_and_silent(tiny: ResNet, tiny_graph: Graph, capfd: pytest.CaptureFixture[str]) -> None:
    again = export_graph(tiny, TINY_INPUT)
    assert again.model.SerializeToString() == tiny_graph.model.SerializeToString()
    assert capfd.readouterr() == ("", "")


def test_each_batch_norm_is_in_the_convolution_before_it_in_the_file_alone(tiny: ResNet) -> None:
    """The network is what the file is compared with, so exporting leaves it as it was."""
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    graph = export_graph(tiny, TINY_INPUT)
    after = tiny.state_dict()
    assert any(name.endswith("running_mean") for name in after)
    assert all(torch.equal(after.pop(name), value) for name, value in before.items())
    assert not after
    assert "BatchNormalization" not in {node.op_type for node in graph.model.graph.node}


def test_channels_the_other_way_round(tiny: ResNet, tmp_path: Path) -> None:
    spec = TINY_INPUT.model_copy(update={"channel_order": "bgr"})
    path = tmp_path / "bgr.onnx"
    export_graph(tiny, spec).save(path)
    images = pixels(3)
    logits = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["logits"], {"image": images})[0]
    # ``mean`` and ``std`` are in the order of the network's channels.
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    with torch.inference_mode():
        bgr = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).permute(0, 3, 1, 2)
        expected = tiny((bgr / 255 - mean) / std)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)


def broken(graph: Graph) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    return model


def test_renamed_output_is_refused(tiny_graph: Graph) -> None:
    model = broken(tiny_graph)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(GraphError):
        check_graph(model, TINY_INPUT, tiny_graph.outputs)


def test_missing_output_is_refused(tiny_graph: Graph) -> None:
    model = broken(tiny_graph)
    del model.graph.output[2]
    with pytest.raises(GraphError, match="the service expects"):
        check_graph(model, TINY_INPUT, tiny_graph.outputs)


def test_outputs_that_the_manifest_does_not_name_are_refused(tiny_graph: Graph) -> None:
    outputs = tiny_graph.outputs.model_copy(update={"embedding": None, "cam": None})
    with pytest.raises(GraphError, match="the service expects"):
        check_graph(tiny_graph.model, TINY_INPUT, outputs)
    model = broken(tiny_graph)
    del model.graph.output[1:]
    check_graph(model, TINY_INPUT, outputs)


def test_invalid_graph_is_refused(tiny_graph: Graph) -> None:
    model = broken(tiny_graph)
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(GraphError, match="not valid ONNX"):
        check_graph(model, TINY_INPUT, tiny_graph.outputs)


def test_external_weights_are_refused(tiny_graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = broken(tiny_graph)
    monkeypatch.chdir(tmp_path)
    tensor = next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
    external_data_helper.set_external_data(tensor, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    with pytest.raises(GraphError):
        check_graph(model, TINY_INPUT, tiny_graph.outputs)
