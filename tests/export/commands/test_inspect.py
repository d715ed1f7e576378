"""``inspect``: a model or a checkpoint in a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torch
import torchvision

from export.commands.inspect import inspect_command
from export.errors import ExportError
from export.networks.build import build
from export.networks.specs import get_spec
from export.publishing import publish_next
from model_store.store import ModelStore, StoreError
from tests.export.reports import test_model_card

from .conftest import Exported, add_bf16


def rows(text: str) -> dict[str, str]:
    return {line[:16].strip(): line[16:] for line in text.splitlines()}


def test_a_model(exported: Exported) -> None:
    status, text = exported.call(inspect_command, "pets")
    found = rows(text)
    manifest = ModelStore(exported.store).resolve("pets").manifest
    assert status == 0
    assert found["model"].startswith("pets version 2")
    assert found["architecture"].startswith("tiny: basic blocks 1-1")
    assert found["parameters"] == f"{manifest.architecture.parameters:,}"
    assert found["multiply-adds"].endswith("G an image")
    assert found["input"].startswith("16x16 RGB, shorter side to 16 (bilinear)")
    assert found["labels"] == "7: ant, bee, cat, dog, elk, fox, gnu"
    assert "activation maps of the top 7 classes" in found["outputs"]
    assert found["parity"].startswith("passed: top-1 agreement with PyTorch 100.00%")
    assert "PyTorch" in found["accuracy"]


def test_a_calibrated_model(exported: Exported) -> None:
    stored = ModelStore(exported.store).resolve("pets")
    assert "calibration" not in rows(exported.call(inspect_command, "pets")[1])
    publish_next(
        ModelStore(exported.store),
        stored,
        lambda _: {"calibration": test_model_card.CALIBRATION.model_copy(update={"report": None})},
    )
    found = rows(exported.call(inspect_command, "pets@3")[1])["calibration"]
    assert found == "temperature 0.7400, error 2.45% (before 6.35%), images of test|.zip"


def test_an_older_version(exported: Exported) -> None:
    assert "pets version 1," in exported.call(inspect_command, "pets@1")[1]


def test_a_model_from_an_onnx_file_was_not_compared_with_pytorch(exported: Exported) -> None:
    store = ModelStore(exported.store)
    stored = store.resolve("pets")
    source = stored.manifest.source.model_copy(update={"origin": "onnx"})
    publish_next(store, stored, lambda _: {"source": source})
    text = exported.call(inspect_command, "pets@3")[1]
    assert "agreement with the given file 100.00%" in text
    assert "PyTorch" not in text


def test_a_file_that_a_checkpoint_names_is_not_opened(exported: Exported, tmp_path: Path) -> None:
    content = {"recipe": {"arch": str(tmp_path / "secret.json")}, "epoch": 1, "labels": list("abcdefg")}
    (tmp_path / "secret.json").write_text("secret")
    torch.save(content | {"state_dict": torch.load(exported.checkpoint)}, tmp_path / "net.pth")
    status, text = exported.call(inspect_command, str(tmp_path / "net.pth"))
    assert status == 0
    assert rows(text)["architecture"] == str(tmp_path / "secret.json")


def test_a_checkpoint(exported: Exported) -> None:
    found = rows(exported.call(inspect_command, str(exported.checkpoint))[1])
    assert found["checkpoint"] == f"{exported.checkpoint} (pytorch)"
    assert found["architecture"].startswith("tiny: ")
    assert found["labels"] == "7 classes, no names"


@pytest.mark.parametrize(
    ("network", "taken"),
    [
        (lambda: torchvision.models.resnet18(num_classes=3), "the first, as in torchvision, "),
        (lambda: build(get_spec("cifar_resnet20"), 3, seed=1), "none of itself, "),
    ],
    ids=["torchvision", "CIFAR"],
)
def test_which_of_several_networks_is_taken(
    exported: Exported, tmp_path: Path, network: Callable[[], torch.nn.Module], taken: str
) -> None:
    torch.save(network().state_dict(), tmp_path / "net.pth")
    text = exported.call(inspect_command, str(tmp_path / "net.pth"))[1]
    assert text.count("\narchitecture ") > 1
    assert rows(text)["export takes"].startswith(taken)


def test_shared_checkpoints_are_recognised(exported: Exported, shared: Path) -> None:
    text = exported.call(inspect_command, str(shared / "checkpoints" / "resnet56-4bfd9763.th"))[1]
    assert "cifar_resnet56: " in text
    assert rows(text)["parameters"] == "853,018"
    assert rows(text)["also in it"] == "best_prec1"


@pytest.mark.parametrize("what", ["missing.pth", "some/where"])
def test_a_path_that_is_not_there_is_not_taken_for_a_model(exported: Exported, what: str) -> None:
    with pytest.raises(ExportError, match="no such file"):
        exported.call(inspect_command, what)


def test_unknown_models_are_said(exported: Exported) -> None:
    with pytest.raises(StoreError, match="no model 'cars'"):
        exported.call(inspect_command, "cars")
    with pytest.raises(click.BadParameter, match="no model name"):
        exported.call(inspect_command, "Cars!")


def test_a_variant_with_where_it_was_compared(exported: Exported) -> None:
    add_bf16(ModelStore(exported.store).resolve("pets"))
    _, text = exported.call(inspect_command, "pets")
    assert rows(text)["bf16"].startswith("model.fp32.onnx, ")
    assert rows(text)["gate"] == "passed, on openvino: top-1 agreement with fp32 100.00%, 8 images of made up"


def test_as_json(exported: Exported) -> None:
    stored = ModelStore(exported.store).resolve("pets", "1")
    add_bf16(stored)
    found = json.loads(exported.call(inspect_command, "pets@1", "--json")[1])
    (fp32,) = (variant for variant in stored.manifest.variants if variant.precision == "fp32")
    assert fp32.parity
    assert fp32.parity.accuracy
    file = {"file": fp32.file, "bytes": fp32.bytes, "sha256": fp32.sha256, "gated": True}
    assert found == {
        "model": "pets",
        "version": "1",
        "folder": str(stored.folder),
        "architecture": "tiny",
        "classes": 7,
        "variants": [
            file | {"precision": "fp32", "accuracy": fp32.parity.accuracy.exported},
            file | {"precision": "bf16", "accuracy": None},
        ],
        "created": stored.manifest.created.isoformat(),
        "parameters": stored.manifest.architecture.parameters,
        "source": stored.manifest.source.model_dump(),
        "labels": ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"],
    }


def test_a_checkpoint_as_json(exported: Exported) -> None:
    found = json.loads(exported.call(inspect_command, str(exported.checkpoint), "--json")[1])
    assert (found["checkpoint"], found["origin"]) == (str(exported.checkpoint), "pytorch")
    assert (found["architectures"], found["classes"], found["labels"]) == (["tiny"], 7, [])
