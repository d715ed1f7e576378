"""The default command: every way of naming weights, and every mistake in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result

from export import __main__ as program
from export.networks.build import build
from export.networks.resnet import ResNet
from export.networks.specs import get_spec
from export.preprocessing import IMAGENET_MEAN
from model_store.manifest import Manifest
from model_store.store import ModelStore
from tests.export.http_server import (
    WeightsServer,
    publish_repository,
    publish_torchvision,
    serving,
    table_says,
    without_proxies,
)
from tests.export.mistakes import the_mistake
from tests.export.origin_files import hugging_face_folder, onnx_file

pytestmark = pytest.mark.usefixtures("tiny_is_known", "exported_once")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program.cli, [str(argument) for argument in arguments])


def exported(folder: Path, *arguments: object) -> Manifest:
    """The manifest of what the command publishes."""
    result = run(*arguments, "--name", "net", "--store", folder / "store")
    assert result.exit_code == 0, result.output
    stored = ModelStore(folder / "store").resolve("net")
    stored.verify()
    return stored.manifest


def mistake(*arguments: object) -> str:
    result = run(*arguments, "--name", "net")
    return the_mistake(result)


def test_preprocessing_of_caffe(weights: Path, tmp_path: Path) -> None:
    means = (103.939, 116.779, 123.68)
    spec = exported(
        tmp_path,
        *(weights, "--arch", "tiny", "--channel-order", "bgr", "--value-range", 0, 255),
        *("--mean", *means, "--std", 1, 1, 1),
    ).preprocessing
    assert spec.channel_order == "bgr"
    assert spec.mean == pytest.approx([mean / 255 for mean in means])


def test_resize_rules(weights: Path, tmp_path: Path) -> None:
    spec = exported(tmp_path, weights, "--arch", "tiny", "--size", 16, "--crop", 0.8).preprocessing
    assert (spec.resize, spec.resize_mode, spec.mean) == (20, "shorter", IMAGENET_MEAN)
    spec = exported(tmp_path, weights, "--arch", "tiny", "--resize-mode", "squash").preprocessing
    assert (spec.resize, spec.resize_mode) == (16, "squash")


@pytest.mark.parametrize(("words", "count"), [((), 7), (("--maps", "all"), 7), (("--maps", 2), 2), (("--maps", 9), 7)])
def test_activation_maps(weights: Path, tmp_path: Path, words: tuple[object, ...], count: int) -> None:
    cam = exported(tmp_path, weights, "--arch", "tiny", *words).outputs.cam
    assert cam
    assert cam.k == count


def test_folder_needs_nothing_but_a_name(tmp_path: Path) -> None:
    manifest = exported(tmp_path, hugging_face_folder(tmp_path / "pets"))
    assert (manifest.source.origin, manifest.source.file) == ("huggingface", "pets")


def test_existing_onnx_file(tmp_path: Path, tiny: ResNet) -> None:
    path = onnx_file(tmp_path / "tiny.onnx", tiny, 16)
    manifest = exported(tmp_path, "--onnx", path, "--mean", 0, 0, 0, "--std", 1, 1, 1)
    assert (manifest.source.origin, manifest.preprocessing.std) == ("onnx", (1.0, 1.0, 1.0))


def test_other_weights_and_forced_origin(tmp_path: Path, tiny: ResNet) -> None:
    path = tmp_path / "both.pth"
    torch.save({"model": tiny.state_dict(), "model_ema": tiny.state_dict()}, path)
    result = run(path, "--arch", "tiny", "--name", "net", "--store", tmp_path / "store")
    assert "note: weights: the moving average 'model_ema'; --weights model takes" in result.stderr
    manifest = exported(tmp_path, path, "--arch", "tiny", "--weights", "model", "--origin", "timm")
    assert (manifest.version, manifest.source.origin) == ("2", "timm")


# Published weights


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    without_proxies(monkeypatch)
    with serving() as server:
        yield server


@pytest.mark.slow
def test_weights_of_torchvision(server: WeightsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = dict(build(get_spec("resnet18"), 1000, seed=0).state_dict())
    table_says(monkeypatch, "resnet18", publish_torchvision(server, state))
    manifest = exported(
        tmp_path, "--pretrained", "torchvision/resnet18", "--mirror", server.url, "--cache", tmp_path / "cache"
    )
    assert manifest.source.origin == "torchvision"
    assert manifest.source.file.startswith("torchvision/resnet18:")
    assert manifest.architecture.name == "resnet18"
    assert ModelStore(tmp_path / "store").resolve("net").labels()[0] == "tench"


def test_model_of_a_hub(server: WeightsServer, tmp_path: Path) -> None:
    folder = hugging_face_folder(tmp_path / "pets")
    commit = publish_repository(server, "me/pets", {path.name: path.read_bytes() for path in folder.iterdir()})
    manifest = exported(tmp_path, "--pretrained", "hf://me/pets", "--mirror", server.url, "--cache", tmp_path / "cache")
    assert (manifest.source.origin, manifest.source.file) == ("huggingface", f"hf://me/pets@{commit}")
    assert ModelStore(tmp_path / "store").resolve("net").labels() == ("cat", "dog", "cow")


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name one of CHECKPOINT, --pretrained REFERENCE and --onnx FILE"),
        (("a.pth", "--onnx", "b.onnx"), "name one of"),
        (("a.pth", "--pretrained", "torchvision/resnet50"), "name one of"),
        (("a.pth", "--crop", "0.9", "--resize", "256"), "--crop and --resize say the same"),
        (("a.pth", "--crop", "0"), "--crop"),
        (("a.pth", "--origin", "caffe"), "--origin"),
        (("a.pth", "--resize-mode", "longest"), "--resize-mode"),
        (("a.pth", "--channel-order", "hsv"), "--channel-order"),
        (("a.pth", "--value-range", "0"), "--value-range"),
        (("a.pth", "--maps", "0"), "--maps"),
        (("a.pth", "--maps", "some"), "--maps"),
        (("--onnx", "absent.onnx"), "absent.onnx: No such file"),
        (("--pretrained", "resnet50"), "torchvision/resnet50 is"),
        (("absent/",), "absent: No such file"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str) -> None:
    assert message in mistake(*arguments)


def test_hostile_files_are_one_line_each(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.safetensors"
    bomb.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    assert "its header claims" in mistake(bomb)
    whole = tmp_path / "whole.pth"
    torch.save(torch.nn.Linear(2, 2), whole)
    assert "torch.save(model.state_dict()" in mistake(whole)
    folder = tmp_path / "folder"
    folder.mkdir()
    safetensors.torch.save_file({"fc.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    with (folder / "config.json").open("wb") as config:
        config.truncate(10**9)
    assert "config.json: 1000000000 bytes" in mistake(folder)
