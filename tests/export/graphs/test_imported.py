"""Existing networks with our ends: the same logits for any batch, embedding and maps where there are some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
from onnx import helper
from rich.console import Console

from export.graphs.contract import Graph, GraphError
from export.graphs.foreign_file import OnnxFile, read_onnx
from export.graphs.imported import file_reference, wrap
from export.images.image_sets import seeded_images
from export.networks.resnet import ResNet
from export.parity import ParityError, Verdict, measure, onnx_runner
from export.preprocessing import normalised
from model_store.manifest import Preprocessing
from tests.export.conftest import perturb
from tests.export.graphs.test_head import EMBEDDING_ONLY, FOUND, NOT_LINEAR
from tests.export.onnx_nets import CHANNELS, CLASSES, HEAD_BIAS, WEIGHT, Net, usual
from tests.export.origin_files import onnx_file

LABELS = tuple("abcd")
SPEC = Preprocessing(height=8, width=8, resize=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
BGR = SPEC.model_copy(update={"channel_order": "bgr"})


def verdict(file: OnnxFile, graph: Graph, spec: Preprocessing, folder: Path, console: Console) -> Verdict:
    path = folder / "wrapped.onnx"
    graph.save(path)
    labels = [str(i) for i in range(file.classes)]
    return measure(seeded_images(spec, count=13), file_reference(file, spec), onnx_runner(path), labels, console)


def wrapped(net: Net, folder: Path, console: Console, spec: Preprocessing = SPEC) -> Graph:
    """``net`` wrapped, its parity with its own file seen to."""
    file = read_onnx(net.save(folder / "net.onnx"))
    graph = wrap(file, spec)
    assert verdict(file, graph, spec, folder, console).reasons == ()
    return graph


def run(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("spec", [SPEC, BGR], ids=["rgb", "bgr"])
def test_outputs_are_the_files_own(tmp_path: Path, console: Console, spec: Preprocessing) -> None:
    """Computed here once more, from the file and its weights."""
    wrapped(usual(), tmp_path, console, spec)
    images = pixels(3)
    found = run(tmp_path / "wrapped.onnx", {"image": images})
    logits = [run(tmp_path / "net.onnx", {"pixels": image[None]})["scores"][0] for image in normalised(images, spec)]
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["embedding"] @ WEIGHT.T + HEAD_BIAS, logits, rtol=1e-4, atol=1e-5)
    top = np.argsort(-found["logits"], axis=1, kind="stable")
    assert found["cam"].shape == (3, CLASSES, 4, 4)
    rebuilt = found["cam"].mean(axis=(2, 3)) + HEAD_BIAS[top]
    np.testing.assert_allclose(rebuilt, np.take_along_axis(found["logits"], top, axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FOUND)
def test_every_known_end_gets_all_outputs(tmp_path: Path, console: Console, name: str) -> None:
    outputs = wrapped(FOUND[name](), tmp_path, console).outputs
    assert (outputs.classes, outputs.embedding) == (CLASSES, CHANNELS)
    assert outputs.cam
    assert (outputs.cam.k, outputs.cam.height, outputs.cam.width) == (CLASSES, 4, 4)


def test_maps_of_the_best_classes_alone(tmp_path: Path, console: Console) -> None:
    file = read_onnx(usual().save(tmp_path / "net.onnx"))
    graph = wrap(file, SPEC, 2)
    assert verdict(file, graph, SPEC, tmp_path, console).reasons == ()
    assert graph.outputs.cam
    assert graph.outputs.cam.k == 2
    found = run(tmp_path / "wrapped.onnx", {"image": pixels(3)})
    best = np.sort(found["logits"], axis=1)[:, :-3:-1]
    top = np.argsort(-found["logits"], axis=1, kind="stable")[:, :2]
    np.testing.assert_allclose(found["cam"].mean(axis=(2, 3)) + HEAD_BIAS[top], best, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EMBEDDING_ONLY)
def test_embedding_alone(tmp_path: Path, console: Console, name: str) -> None:
    outputs = wrapped(EMBEDDING_ONLY[name](), tmp_path, console).outputs
    assert (outputs.embedding, outputs.cam) == (CHANNELS, None)
    assert {output.name for output in onnx.load(tmp_path / "wrapped.onnx").graph.output} == {"logits", "embedding"}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_logits_alone(tmp_path: Path, console: Console, name: str) -> None:
    net = NOT_LINEAR[name]()
    if name == "no layer":
        net.output_shape = (1, CHANNELS)
    outputs = wrapped(net, tmp_path, console).outputs
    assert (outputs.embedding, outputs.cam) == (None, None)


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 20])
def test_operator_sets(tmp_path: Path, console: Console, opset: int) -> None:
    net = Net(opset=opset).average().flat().gemm()
    assert wrapped(net, tmp_path, console).opset == max(opset, 13)


@pytest.mark.parametrize("batch", [1, 2, 5, "n", None])
def test_batch_becomes_dynamic(tmp_path: Path, console: Console, batch: int | str | None) -> None:
    net = Net(input_shape=(batch, 3, 8, 8), output_shape=(batch, CLASSES)).average()
    first = batch if isinstance(batch, int) else 0
    net.add("Reshape", net.constant("flat", [first, CHANNELS])).gemm()
    wrapped(net, tmp_path, console)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("allowzero", [0, 1])
def test_reshapes_and_expands_of_a_fixed_batch(tmp_path: Path, console: Console, batch: int, allowzero: int) -> None:
    """Attention as PyTorch writes it: the batch in the constants of three operators."""
    net = Net(input_shape=(batch, 3, 8, 8), output_shape=(batch, CLASSES))
    maps = net.output
    net.average()
    net.add("Reshape", net.constant("line", [batch, 1, -1]), allowzero=allowzero)
    net.add("Reshape", net.constant("pixel", [batch, -1, 1, 1]), allowzero=allowzero)
    net.add("Expand", net.constant("maps", [batch, CHANNELS, 4, 4]))
    net.add("Mul", maps)
    wrapped(net.average().flat().gemm(), tmp_path, console)


def test_any_size_takes_the_one_that_is_asked_for(tmp_path: Path, console: Console) -> None:
    net = usual(input_shape=("n", 3, "h", "w"), output_shape=("n", CLASSES))
    spec = SPEC.model_copy(update={"height": 12, "width": 12, "resize": 12})
    outputs = wrapped(net, tmp_path, console, spec).outputs
    assert outputs.cam
    assert outputs.cam.height == 6


def test_names_of_ours_in_the_file_do_no_harm(tmp_path: Path, console: Console) -> None:
    net = usual()
    for node, name in zip(net.nodes, ("image", "embedding", "cam", "serving/mean"), strict=False):
        for other in net.nodes:
            other.input[:] = [name if value == node.output[0] else value for value in other.input]
        node.output[0] = name
    wrapped(net, tmp_path, console)


def test_parts_that_make_no_logits_are_left_out(tmp_path: Path, console: Console) -> None:
    graph = wrapped(usual().add("Softmax", axis=1), tmp_path, console)
    assert "Softmax" not in {node.op_type for node in graph.model.graph.node}


def test_probabilities_of_another_make_are_refused(tmp_path: Path, console: Console) -> None:
    """Nothing in the graph says so: the softmax runs along the other dimension of a transposed tensor."""
    net = usual().add("Transpose", perm=[1, 0]).add("Softmax", axis=0).add("Transpose", perm=[1, 0])
    with pytest.raises(GraphError, match=r"net\.onnx: 'scores' gives probabilities.*without its softmax"):
        wrapped(net, tmp_path, console)


def test_every_node_gets_a_name_of_its_own(tmp_path: Path) -> None:
    net = usual()
    for node, name in zip(net.nodes, ("", "same", "same", "Conv_5"), strict=False):
        node.name = name
    graph = wrap(read_onnx(net.save(tmp_path / "net.onnx")), SPEC)
    names = [node.name for node in graph.model.graph.node]
    assert "" not in names
    assert len(set(names)) == len(names)
    assert {"net/same", "net/Conv_5"} <= set(names)


def test_no_trace_of_the_machine_that_made_it(tmp_path: Path) -> None:
    model = usual().model()
    model.producer_name = model.doc_string = model.graph.doc_string = "secret"
    model.graph.node[0].doc_string = "File /home/secret/train.py"
    helper.set_model_props(model, {"author": "secret"})
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert b"secret" not in wrap(read_onnx(path), SPEC).model.SerializeToString()


# What does not come out equal, or cannot


def test_batch_that_cannot_become_dynamic(tmp_path: Path, console: Console) -> None:
    """All maps in one row: then a batch of three has three times the row."""
    net = Net(output_shape=(1, 2))
    net.weights["weight"] = np.ones((CHANNELS * 16, 2), np.float32)
    net.add("Transpose", perm=[1, 0, 2, 3]).add("Reshape", net.constant("row", [1, CHANNELS * 16])).add(
        "MatMul", "weight"
    )
    with pytest.raises((GraphError, ParityError), match=r"cannot run the file on 3 images|not valid|a batch|shape"):
        wrapped(net, tmp_path, console)


def test_images_that_are_mixed_do_not_pass(tmp_path: Path, console: Console) -> None:
    """Runs with any batch, but one image's result depends on the others."""
    net = Net(opset=18)
    maps = net.output
    net.add("ReduceMean", net.constant("axes", [0]), keepdims=1).add("Add", maps)
    file = read_onnx(net.average().flat().gemm().save(tmp_path / "net.onnx"))
    reasons = verdict(file, wrap(file, SPEC), SPEC, tmp_path, console).reasons
    assert any("logits differ" in reason for reason in reasons)


def test_wrong_normalisation_shows(tmp_path: Path, console: Console) -> None:
    file = read_onnx(usual().save(tmp_path / "net.onnx"))
    graph = wrap(file, SPEC)
    assert verdict(file, graph, BGR, tmp_path, console).reasons


def test_changed_weights_show(tmp_path: Path, console: Console) -> None:
    file = read_onnx(usual().save(tmp_path / "net.onnx"))
    graph = wrap(file, SPEC)
    kernel = next(tensor for tensor in graph.model.graph.initializer if tensor.name.endswith("kernel"))
    values = onnx.numpy_helper.to_array(kernel) * np.float32(1.01)
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    assert any("logits differ" in reason for reason in verdict(file, graph, SPEC, tmp_path, console).reasons)


def test_operator_set_that_cannot_be_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no adapter\nfor Upsample")

    monkeypatch.setattr("onnx.version_converter.convert_version", refuse)
    file = read_onnx(usual(opset=11).save(tmp_path / "net.onnx"))
    with pytest.raises(GraphError, match="opset 11 cannot be converted to 13: no adapter for Upsample; export it anew"):
        wrap(file, SPEC)


# As PyTorch exports them


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seresnet18", "ecaresnet26t", "resnetv2_50", "densenet121"])
def test_networks_as_pytorch_exports_them(tmp_path: Path, console: Console, name: str) -> None:
    net = perturb(timm.create_model(name, num_classes=5)).eval()
    file = read_onnx(onnx_file(tmp_path / "net.onnx", net, 64))
    assert file.batch == 1
    spec = SPEC.model_copy(update={"height": 64, "width": 64, "resize": 64})
    graph = wrap(file, spec)
    assert verdict(file, graph, spec, tmp_path, console).reasons == ()
    assert graph.outputs.cam


def test_tiny_network_as_pytorch_exports_it(tmp_path: Path, console: Console, tiny: ResNet, tiny_onnx: Path) -> None:
    """The same outputs as our own export of the same network."""
    file = read_onnx(onnx_file(tmp_path / "net.onnx", tiny, 16))
    spec = Preprocessing(height=16, width=16, resize=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    graph = wrap(file, spec)
    assert verdict(file, graph, spec, tmp_path, console).reasons == ()
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    ours, theirs = (run(path, {"image": images}) for path in (tiny_onnx, tmp_path / "wrapped.onnx"))
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_allclose(theirs[name], values, rtol=1e-4, atol=1e-5)
