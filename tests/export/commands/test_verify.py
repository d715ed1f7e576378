"""``verify``: a stored model is measured again, and what is wrong shows in words and in the status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from export import verify
from export.commands.verify import verify_command
from export.convert import Request, convert
from export.errors import ExportError
from export.variants.gate import Logits, cpu_logits
from export.variants.gate_providers import ProviderMissing
from model_store.store import ModelStore
from model_store.stored_model import StoredModel

from .conftest import Exported, add_bf16

Pictures = Callable[..., Path]


@pytest.fixture
def stored(exported: Exported) -> StoredModel:
    return ModelStore(exported.store).resolve("pets")


@pytest.fixture
def images(exported: Exported) -> str:
    return str(exported.checkpoint.parent / "pictures")


def test_a_good_model(exported: Exported, images: str) -> None:
    status, text = exported.call(verify_command, "pets", "--images", images)
    assert status == 0
    assert "FAILED" not in text
    assert "8 of pictures, labelled" in text
    assert "in the manifest" in text


def test_with_the_checkpoint_fp32_is_compared_with_pytorch(exported: Exported, images: str) -> None:
    words = ("pets", "--images", images, "--checkpoint", str(exported.checkpoint))
    status, text = exported.call(verify_command, *words)
    assert status == 0
    assert "PyTorch   top-1 agreement 100.00%" in text


def test_the_state_dict_that_was_exported_is_the_one_compared(exported: Exported, images: str, tmp_path: Path) -> None:
    last = torch.load(exported.checkpoint, weights_only=True)
    average = {key: torch.zeros_like(value) for key, value in last.items()}
    both = tmp_path / "both.pth"
    torch.save({"state_dict": last, "state_dict_ema": average}, both)
    request = Request(checkpoint=both, name="last", store=exported.store, arch="tiny", weights="state_dict")
    convert(request, Console(quiet=True))
    words = ("last", "--images", images, "--checkpoint", str(both))
    assert exported.call(verify_command, *words, "--weights", "state_dict")[0] == 0
    status, text = exported.call(verify_command, *words)
    assert status == 1
    assert "PyTorch   FAILED" in text


def test_an_imported_onnx_file_has_no_checkpoint(exported: Exported, images: str, stored: StoredModel) -> None:
    manifest = stored.folder / "manifest.json"
    content = json.loads(manifest.read_text())
    content["source"]["origin"] = "onnx"
    manifest.write_text(json.dumps(content))
    with pytest.raises(ExportError, match="made from an ONNX file"):
        exported.call(verify_command, "pets", "--images", images, "--checkpoint", str(exported.checkpoint))


def test_another_checkpoint_is_refused(exported: Exported, images: str, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    state = torch.load(exported.checkpoint, weights_only=True)
    torch.save({key: value + 0 for key, value in state.items()} | {"fc.bias": state["fc.bias"] + 1}, other)
    with pytest.raises(ExportError, match="not the checkpoint that pets was exported from"):
        exported.call(verify_command, "pets", "--images", images, "--checkpoint", str(other))


def test_a_changed_file_is_found_and_not_run(exported: Exported, images: str, stored: StoredModel) -> None:
    file = stored.folder / "model.fp32.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    status, text = exported.call(verify_command, "pets", "--images", images)
    assert status == 1
    assert "files     FAILED" in text
    assert "fp32" not in text.split("FAILED")[1].replace("model.fp32.onnx", "")


def test_an_accuracy_that_is_not_there_any_more_fails(exported: Exported, images: str, stored: StoredModel) -> None:
    manifest = stored.folder / "manifest.json"
    content = json.loads(manifest.read_text())
    content["variants"][0]["parity"]["accuracy"]["exported"] = 1.0
    manifest.write_text(json.dumps(content))
    status, text = exported.call(verify_command, "pets", "--images", images)
    assert status == 1
    assert "fp32      FAILED: top-1" in text


@pytest.mark.parametrize(("sign", "passed"), [(1, True), (-1, False)])
def test_bf16_is_measured_on_openvino(
    exported: Exported,
    pictures: Pictures,
    stored: StoredModel,
    monkeypatch: pytest.MonkeyPatch,
    sign: int,
    passed: bool,
) -> None:
    """By a fake, as this machine need not have bf16."""
    opened: list[tuple[str, ...]] = []

    def fake(model: Path, *where: str) -> Logits:
        opened.append((model.name, *where))
        return lambda pixels: sign * cpu_logits(model)(pixels)

    add_bf16(stored)
    monkeypatch.setattr(verify, "open_logits", fake)
    status, text = exported.call(verify_command, "pets", "--images", str(pictures(("",), count=9)))
    assert opened == [("model.fp32.onnx", "openvino", "bf16")]
    share = "100.00%" if passed else "0.00%"
    assert f"bf16      {'' if passed else 'FAILED: '}agreement with fp32 {share} on openvino" in text
    assert status == (0 if passed else 1)


def test_what_cannot_be_measured_here_is_said(
    exported: Exported, images: str, stored: StoredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> Logits:
        raise ProviderMissing("bf16: this CPU has no instructions for it")

    add_bf16(stored)
    monkeypatch.setattr(verify, "open_logits", missing)
    status, text = exported.call(verify_command, "pets", "--images", images)
    assert status == 0
    assert "bf16      not measured: bf16: this CPU has no instructions for it" in text


def test_without_labels_there_is_no_accuracy(exported: Exported, pictures: Pictures) -> None:
    unlabelled = pictures(("",), count=2)
    status, text = exported.call(verify_command, "pets@1", "--images", str(unlabelled))
    assert status == 0
    assert "no accuracy: not every image is in a class folder" in text


def test_as_json(exported: Exported, images: str, stored: StoredModel) -> None:
    status, text = exported.call(verify_command, "pets", "--images", images, "--json")
    found = json.loads(text)
    assert (status, found["model"], found["version"], found["passed"]) == (0, "pets", "2", True)
    assert [one["subject"] for one in found["findings"]] == ["files", "images", "fp32"]
    (stored.folder / "labels.txt").write_text("other")
    status, text = exported.call(verify_command, "pets", "--images", images, "--json")
    assert (status, json.loads(text)["passed"]) == (1, False)
