"""One export from start to end, and how it ends when something is wrong: nothing is left behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console

from export import convert as module
from export import train
from export.checkpoints.checkpoint import CheckpointError
from export.checkpoints.origins import Description
from export.convert import Request, convert
from export.errors import ExportError
from export.graphs.contract import Graph, Maps
from export.graphs.foreign_file import read_onnx
from export.graphs.serving_graph import export_graph
from export.images.files import ImagesError
from export.networks.resnet import ResNet
from export.parity import ParityError
from export.preprocessing import IMAGENET_MEAN, IMAGENET_STD, InputOptions
from model_store.manifest import Preprocessing
from model_store.store import ModelStore, StoreError
from model_store.stored_model import StoredModel
from tests.cifar import AUTHORS, LabelledImages

from .origin_files import hugging_face_folder, lightning_checkpoint, onnx_file, save, timm_folder, torch_export_archive

Pictures = Callable[..., Path]


pytestmark = pytest.mark.usefixtures("tiny_is_known", "exported_once")


@pytest.fixture
def request_(tmp_path: Path, tiny: ResNet) -> Request:
    checkpoint = tmp_path / "tiny weights.pth"
    torch.save(tiny.state_dict(), checkpoint)
    return Request(checkpoint=checkpoint, name="tiny-net", store=tmp_path / "store", arch="tiny")


def left_in(store: Path) -> list[Path]:
    return sorted(store.rglob("*")) if store.exists() else []


def test_published_model_is_whole(request_: Request, tiny: ResNet, console: Console) -> None:
    convert(request_, console)
    stored = ModelStore(request_.store).resolve("tiny-net")
    stored.verify()
    manifest = stored.manifest
    assert manifest.version == "1"
    assert manifest.architecture.name == "tiny"
    assert manifest.architecture.spec["depths"] == [1, 1]
    assert manifest.architecture.parameters == sum(p.numel() for p in tiny.parameters())
    assert manifest.source.origin == "pytorch"
    assert manifest.source.file == request_.checkpoint.name
    assert manifest.source.sha256 == hashlib.sha256(request_.checkpoint.read_bytes()).hexdigest()
    assert (manifest.preprocessing.height, manifest.preprocessing.resize) == (16, 16)
    assert (manifest.preprocessing.mean, manifest.preprocessing.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert [v.precision for v in manifest.variants] == ["fp32"]
    assert stored.labels() == tuple(f"class {i}" for i in range(7))
    names = ["README.md", "labels.txt", "manifest.json", "model.fp32.onnx"]
    assert sorted(p.name for p in stored.folder.iterdir()) == names
    assert [p.name for p in request_.store.iterdir()] == ["tiny-net"]


def test_versions_go_up_and_never_change(request_: Request, console: Console) -> None:
    assert convert(request_, console).manifest.version == "1"
    assert convert(request_, console).manifest.version == "2"
    assert convert(replace(request_, version="7"), console).manifest.version == "7"
    before = {path: path.read_bytes() for path in left_in(request_.store) if path.is_file()}
    with pytest.raises(StoreError, match="version 7 is in"):
        convert(replace(request_, version="7"), console)
    assert {path: path.read_bytes() for path in left_in(request_.store) if path.is_file()} == before


def test_labelled_images_give_accuracy(request_: Request, console: Console, pictures: Pictures, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join("abcdefg"))
    stored = convert(replace(request_, labels=labels, verify_images=pictures(("b", "d"))), console)
    parity = stored.manifest.variants[0].parity
    assert (parity.images, parity.image_source) == (6, "pictures")
    assert parity.accuracy
    assert set(parity.accuracy.by_class) == {"b", "d"}
    assert "## Accuracy, fp32" in (stored.folder / "README.md").read_text()


def test_own_checkpoint_needs_no_options(tmp_path: Path, tiny: ResNet, console: Console) -> None:
    labels = [f"kind {i}" for i in range(7)]
    checkpoint = tmp_path / "own.pth"
    recipe = {"arch": "tiny", "epochs": 3, "seed": 1}
    torch.save({"state_dict": tiny.state_dict(), "recipe": recipe, "epoch": 2, "labels": labels}, checkpoint)
    stored = convert(Request(checkpoint=checkpoint, name="own", store=tmp_path / "store"), console)
    assert stored.labels() == tuple(labels)
    assert stored.manifest.source.origin == "export.train"
    assert stored.manifest.preprocessing.mean == train.MEAN
    assert stored.manifest.preprocessing.std == train.STD
    assert "training is not finished: 2 epochs" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "| seed | 1 |" in (stored.folder / "README.md").read_text()


def test_input_options_reach_the_graph(request_: Request, console: Console) -> None:
    options = InputOptions(size=24, resize=32, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    spec = convert(replace(request_, input=options), console).manifest.preprocessing
    assert (spec.height, spec.width, spec.resize, spec.interpolation) == (24, 24, 32, "bicubic")
    assert (spec.mean, spec.std) == (options.mean, options.std)


def test_caffe_style_preprocessing_reaches_the_graph(request_: Request, console: Console) -> None:
    means = (103.939, 116.779, 123.68)
    options = InputOptions(mean=means, std=(1.0, 1.0, 1.0), channel_order="bgr", value_range=(0.0, 255.0))
    stored = convert(replace(request_, input=options), console)
    spec = stored.manifest.preprocessing
    assert spec.channel_order == "bgr"
    assert spec.mean == pytest.approx([value / 255 for value in means])
    assert spec.std == pytest.approx([1 / 255] * 3)
    stored.verify()


# Origins


def published(stored: StoredModel) -> tuple[str, str, int]:
    """Origin, architecture and classes of a model that is whole."""
    stored.verify()
    manifest = stored.manifest
    assert manifest.variants[0].parity
    assert manifest.variants[0].parity.passed
    return manifest.source.origin, manifest.architecture.name, manifest.outputs.classes


Write = Callable[[Path, ResNet], Path]


def _prefixed(net: ResNet, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in net.state_dict().items()}


ORIGINS: dict[str, tuple[str, Write]] = {
    "bare": ("pytorch", lambda path, net: save(path / "a.pth", net.state_dict())),
    "DDP": ("pytorch", lambda path, net: save(path / "a.pth", {"model": _prefixed(net, "module.")})),
    "EMA": (
        "pytorch",
        lambda path, net: save(
            path / "a.pth", {"state_dict": {}, "model_ema": net.state_dict() | {"n_averaged": torch.tensor(3)}}
        ),
    ),
    "bfloat16": (
        "pytorch",
        lambda path, net: save(path / "a.pth", {k: v.bfloat16() for k, v in net.state_dict().items() if v.ndim}),
    ),
    "lightning": ("lightning", lambda path, net: lightning_checkpoint(path / "a.ckpt", net.state_dict())),
    "torch.export": ("torch.export", lambda path, net: torch_export_archive(path / "a.pt2", net, 16)),
    "timm": (
        "timm",
        lambda path, net: timm_folder(path / "net", net.state_dict(), "tiny", input_size=[3, 16, 16], crop_pct=1.0),
    ),
}


@pytest.mark.parametrize("name", ORIGINS)
def test_every_origin_arrives_in_the_store(tmp_path: Path, tiny: ResNet, console: Console, name: str) -> None:
    origin, write = ORIGINS[name]
    request = Request(write(tmp_path, tiny), "net", tmp_path / "store", arch=None if name == "timm" else "tiny")
    assert published(convert(request, console)) == (origin, "tiny", 7)
    assert f"note: origin: {origin}" in console.file.getvalue()  # type: ignore[attr-defined]


def test_hugging_face_folder_needs_no_options(tmp_path: Path, console: Console) -> None:
    stored = convert(Request(hugging_face_folder(tmp_path / "net"), "pets", tmp_path / "store"), console)
    assert published(stored) == ("huggingface", "huggingface_resnet", 3)
    assert stored.labels() == ("cat", "dog", "cow")
    spec = stored.manifest.preprocessing
    assert (spec.height, spec.resize, spec.interpolation, spec.mean) == (32, 40, "bicubic", (0.4, 0.5, 0.6))
    assert stored.manifest.architecture.spec["depths"] == [1, 2]
    assert stored.manifest.source.file == "net"
    notes = console.file.getvalue()  # type: ignore[attr-defined]
    assert "note: labels: config.json" in notes
    assert "from preprocessor_config.json" in notes


def test_command_overrides_the_origin(tmp_path: Path, console: Console) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    options = InputOptions(resize_mode="squash", interpolation="nearest")
    folder = hugging_face_folder(tmp_path / "net")
    stored = convert(Request(folder, "pets", tmp_path / "store", labels=labels, input=options), console)
    assert stored.labels() == ("a", "b", "c")
    spec = stored.manifest.preprocessing
    assert (spec.height, spec.resize, spec.resize_mode, spec.interpolation) == (32, 32, "squash", "nearest")
    assert "from the command and preprocessor_config.json" in console.file.getvalue()  # type: ignore[attr-defined]


def test_existing_onnx_file(tmp_path: Path, tiny: ResNet, console: Console) -> None:
    path = onnx_file(tmp_path / "tiny.onnx", tiny, 16)
    stored = convert(Request(path, "net", tmp_path / "store", onnx=True), console)
    assert published(stored) == ("onnx", "onnx", 7)
    manifest = stored.manifest
    assert manifest.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest.outputs.cam
    assert manifest.preprocessing.height == manifest.preprocessing.resize == 16
    # PyTorch folds BatchNorm into the convolutions before it.
    assert manifest.architecture.parameters == read_onnx(path).parameters > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "tiny"}, "--arch is for checkpoints"),
        ({"origin": "timm"}, "--origin is for checkpoints"),
        ({"weights": "model"}, "--weights is for checkpoints"),
        ({"input": InputOptions(size=32)}, "its input is 16x16; --size 32 is not"),
    ],
)
def test_options_that_an_onnx_file_does_not_take(
    tmp_path: Path, tiny_onnx_net: Path, console: Console, change: dict[str, object], message: str
) -> None:
    request = Request(tiny_onnx_net, "net", tmp_path / "store", onnx=True)
    with pytest.raises(ExportError, match=message):
        convert(replace(request, **change), console)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny_onnx_net(tiny: ResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_file(tmp_path_factory.mktemp("onnx") / "tiny.onnx", tiny, 16)


def test_what_the_publisher_says_goes_before_the_file(request_: Request, console: Console) -> None:
    about = Description(architecture="tiny", labels=tuple("abcdefg"), input=InputOptions(size=24), source="zoo/tiny")
    stored = convert(replace(request_, arch=None, about=about, reference="zoo/tiny:V1"), console)
    assert stored.labels() == tuple("abcdefg")
    assert stored.manifest.preprocessing.height == 24
    assert stored.manifest.source.file == "zoo/tiny:V1"


def test_other_weights_of_the_checkpoint(request_: Request, tiny: ResNet, console: Console, tmp_path: Path) -> None:
    zeros = {key: torch.zeros_like(value) for key, value in tiny.state_dict().items()}
    path = save(tmp_path / "both.pth", {"student": tiny.state_dict(), "model": zeros})
    convert(replace(request_, checkpoint=path, weights="student"), console)
    with pytest.raises(CheckpointError, match="no state dict and no names under --weights teacher"):
        convert(replace(request_, checkpoint=path, weights="teacher"), console)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"arch": "resnet51"}, ExportError, "unknown architecture 'resnet51'"),
        ({"arch": "cifar_resnet20"}, CheckpointError, "does not fit cifar_resnet20"),
        ({"origin": "lightning"}, CheckpointError, "not of lightning: no 'pytorch-lightning_version'"),
        ({"onnx": True, "arch": None}, ExportError, "not an ONNX file"),
        ({"name": "No Name"}, StoreError, "is no model name"),
        ({"name": "../up"}, StoreError, "is no model name"),
        ({"version": "v1"}, StoreError, "is no version"),
        ({"labels": Path("absent.txt")}, ExportError, r"absent\.txt: No such file"),
        ({"checkpoint": Path("absent.pth")}, CheckpointError, r"absent\.pth: No such file"),
        ({"verify_images": Path("absent.zip")}, ImagesError, "neither a folder nor a zip"),
        ({"input": InputOptions(size=32, resize=16)}, ExportError, "--resize 16 is less than --size 32"),
        ({"input": InputOptions(std=(0.0, 1.0, 1.0))}, ExportError, "--std"),
        ({"input": InputOptions(mean=(float("nan"), 1.0, 1.0))}, ExportError, "--mean"),
        ({"input": InputOptions(value_range=(1.0, 0.0))}, ExportError, "value range"),
    ],
)
def test_wrong_request_leaves_nothing(
    request_: Request, console: Console, change: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        convert(replace(request_, **change), console)  # type: ignore[arg-type]
    assert left_in(request_.store) == []


def test_undecodable_image_leaves_nothing(request_: Request, console: Console, pictures: Pictures) -> None:
    folder = pictures()
    (folder / "dog" / "2.png").write_bytes(b"no image")
    with pytest.raises(ImagesError, match=r"dog/2\.png"):
        convert(replace(request_, verify_images=folder), console)
    assert left_in(request_.store) == []


def test_ruined_graph_is_not_published(request_: Request, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def ruined(net: ResNet, preprocessing: Preprocessing, maps: Maps) -> Graph:
        graph = export_graph(net, preprocessing, maps)
        weight = next(t for t in graph.model.graph.initializer if t.name.endswith("fc.weight"))
        values = numpy_helper.to_array(weight) * np.float32(1.01)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        return graph

    monkeypatch.setattr(module, "export_graph", ruined)
    with pytest.raises(ParityError, match=r"not published.*logits differ"):
        convert(request_, console)
    assert left_in(request_.store) == []


def test_interruption_leaves_nothing(request_: Request, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(request_, console)
    assert left_in(request_.store) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet32"])
def test_accuracy_is_that_of_the_authors_code(
    shared: Path, cifar_test: LabelledImages, tmp_path: Path, console: Console, name: str
) -> None:
    request = Request(
        checkpoint=shared / "checkpoints" / AUTHORS[name].file,
        name="cifar",
        store=tmp_path,
        arch=f"cifar_{name}",
        verify_images=cifar_test.path,
    )
    parity = convert(request, console).manifest.variants[0].parity
    assert parity.images == cifar_test.count
    assert parity.top1_agreement == 1.0
    assert parity.accuracy
    assert parity.accuracy.exported == pytest.approx(AUTHORS[name].accuracy(cifar_test), abs=2e-4)
    assert parity.accuracy.pytorch == pytest.approx(AUTHORS[name].accuracy(cifar_test), abs=2e-4)
    assert len(parity.accuracy.by_class) == 10
