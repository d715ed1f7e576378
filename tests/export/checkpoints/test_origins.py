"""Origins are recognised, and their networks compute what they computed there."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from export.checkpoints.checkpoint import read_checkpoint
from export.checkpoints.fitting import choose, load_network
from export.checkpoints.origins import NAMES, Clues, named_architecture, own_names, recognise
from export.networks import specs
from export.networks.build import build, skeleton
from tests.export.conftest import perturb
from tests.export.origin_files import hugging_face_model, save


def assert_same_logits(path: Path, theirs: nn.Module, arch: str | None = None, size: int = 64) -> str:
    """The network read from ``path`` gives their logits; the name of its architecture."""
    checkpoint = read_checkpoint(path)
    choice = choose(checkpoint, arch)
    ours = load_network(checkpoint, choice.name, choice.spec)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(images)
        expected = getattr(expected, "logits", expected)
        found = ours(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    return choice.name


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "densenet121"])
def test_torchvision(tmp_path: Path, name: str) -> None:
    theirs = perturb(torchvision.models.get_model(name, num_classes=3)).eval()
    path = save(tmp_path / "a.pth", theirs.state_dict())
    assert assert_same_logits(path, theirs) == name
    assert read_checkpoint(path).origin == "torchvision"


@pytest.mark.parametrize(
    "name",
    ["seresnet18", "resnet26t", "ecaresnet26t", "resnetv2_50", pytest.param("resnet50d", marks=pytest.mark.slow)],
)
def test_timm(tmp_path: Path, name: str) -> None:
    theirs = perturb(timm.create_model(name, num_classes=3)).eval()
    path = save(tmp_path / "a.pth", theirs.state_dict())
    assert assert_same_logits(path, theirs) == name
    assert read_checkpoint(path).origin == "timm"


@pytest.mark.parametrize("name", ["resnetblur18", "resnet18"])
def test_networks_of_the_same_shapes_are_told_apart_by_name(tmp_path: Path, name: str) -> None:
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    theirs = perturb(timm.create_model(name, num_classes=3)).eval()
    assert_same_logits(save(tmp_path / "a.pth", theirs.state_dict()), theirs, arch=name)


@pytest.mark.parametrize("layer", ["basic", "bottleneck"])
def test_hugging_face_weights_without_their_folder(tmp_path: Path, layer: str) -> None:
    basic = layer == "basic"
    theirs = hugging_face_model(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512] if basic else [256, 512, 1024, 2048],
        depths=[2, 2, 2, 2],
        layer_type=layer,
    )
    path = save(tmp_path / "a.bin", theirs.state_dict())
    arch = "resnet18" if basic else "resnet26"
    assert_same_logits(path, theirs, arch)
    assert read_checkpoint(path).origin == "huggingface"


def test_published_densenets_have_older_names() -> None:
    """As in torchvision's own ``_load_state_dict``."""
    ours = skeleton(specs.get_spec("densenet121"), 3).state_dict()
    older = {
        key.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.").replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2.").replace("fc.", "classifier."): value
        for key, value in ours.items()
    }  # fmt: skip
    assert older.keys() != ours.keys()
    assert own_names(older)[0].keys() == ours.keys()


def test_cifar_networks_in_circulation() -> None:
    """kuangliu's names."""
    ours = skeleton(specs.get_spec("cifar_resnet20_b"), 10).state_dict()
    theirs = {key.replace("downsample.", "shortcut.").replace("fc.", "linear."): v for key, v in ours.items()}
    assert own_names(theirs)[0].keys() == ours.keys()


FAMILIES = (
    *("resnet18", "resnet26t", "resnetv2_50", "seresnext50_32x4d", "ecaresnet50d", "plain34", "densenet121"),
    *("cifar_resnet20", "cifar_preresnet20", "cifar_wrn16_8", "cifar_highway11", "cifar_densenet_bc100_12"),
)


@pytest.mark.parametrize("name", FAMILIES)
def test_own_names_stay(name: str) -> None:
    ours = skeleton(specs.get_spec(name), 3).state_dict()
    renamed, notes = own_names(ours)
    assert list(renamed) == list(ours)
    assert notes == ()


# Heads

HEAD = torch.arange(6.0).view(3, 2)


@pytest.mark.parametrize("name", ["fc", "linear", "classifier", "last_linear", "head.fc"])
def test_names_of_heads(name: str) -> None:
    state, notes = own_names({f"{name}.weight": HEAD, f"{name}.bias": HEAD[:, 0]})
    assert set(state) == {"fc.weight", "fc.bias"}
    assert notes == ()


def test_head_in_a_sequential_is_told() -> None:
    """A fine-tuned one: ``net.fc = nn.Sequential(nn.Dropout(), nn.Linear(...))``."""
    state, (note,) = own_names({"fc.1.weight": HEAD, "fc.1.bias": HEAD[:, 0], "conv1.weight": HEAD})
    assert set(state) == {"fc.weight", "fc.bias", "conv1.weight"}
    assert "'fc.1'" in note


def test_head_of_two_layers_stays_unknown() -> None:
    state, _ = own_names({"fc.0.weight": HEAD, "fc.2.weight": HEAD})
    assert set(state) == {"fc.0.weight", "fc.2.weight"}


def test_head_that_is_a_convolution() -> None:
    state, _ = own_names({"head.fc.weight": HEAD[:, :, None, None]})
    assert torch.equal(state["fc.weight"], HEAD)


def test_two_names_for_one_are_not_lost() -> None:
    state, _ = own_names({"fc.weight": HEAD, "linear.weight": HEAD})
    assert set(state) == {"fc.weight", "linear.weight"}


@given(st.dictionaries(st.text("abcfclayerstm.0123456789_", max_size=30), st.just(HEAD), max_size=8))
def test_no_name_is_lost(state: Mapping[str, Tensor]) -> None:
    assert len(own_names(state)[0]) == len(state)


# Recognition


def clues(names: Mapping[str, Any], content: Mapping[str, Any] | None = None, **fields: Any) -> Clues:
    given = {"format": "pytorch", "key": None, "prefix": ""} | fields
    return Clues(content=names if content is None else content, names=frozenset(names), **given)


RESNET18 = skeleton(specs.get_spec("resnet18"), 3).state_dict()
ARGUMENTS = argparse.Namespace(model="resnet50")


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("torchvision", clues(RESNET18)),
        ("torchvision", clues(RESNET18, {"model": {}, "args": ARGUMENTS}, key="model")),
        ("torchvision", clues(skeleton(specs.get_spec("densenet121"), 3).state_dict())),
        ("pytorch", clues(RESNET18, {"state_dict": {}}, key="state_dict")),
        ("pytorch", clues(RESNET18, prefix="module.")),
        ("pytorch", clues(skeleton(specs.get_spec("cifar_resnet20"), 3).state_dict())),
        ("timm", clues(RESNET18, {"state_dict": {}, "arch": "resnet18", "args": ARGUMENTS}, key="state_dict")),
        ("timm", clues(skeleton(specs.get_spec("seresnet18"), 3).state_dict())),
        ("timm", clues(skeleton(specs.get_spec("resnet26d"), 3).state_dict())),
        ("lightning", clues(RESNET18, {"state_dict": {}, "pytorch-lightning_version": "2"}, key="state_dict")),
        ("export.train", clues({}, dict.fromkeys(("state_dict", "recipe", "epoch", "labels")), key="state_dict")),
        ("torch.export", clues(RESNET18, format="torch.export")),
        ("huggingface", clues({"resnet.embedder.embedder.convolution.weight": 1})),
        ("pytorch", clues({"x": 1})),
    ],
)
def test_recognised_by_itself(expected: str, found: Clues) -> None:
    assert recognise(found).name == expected
    assert expected in NAMES


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"arch": "resnet50"}, "resnet50"),
        ({"arch": "resnet50.a1_in1k"}, "resnet50"),
        ({"args": ARGUMENTS}, "resnet50"),
        ({"arch": "resnet51"}, None),
        ({"arch": 50}, None),
        ({"args": {"model": "resnet50"}}, None),
        ({}, None),
    ],
)
def test_name_that_a_training_script_noted(content: dict[str, Any], name: str | None) -> None:
    assert named_architecture(content, specs.SPECS) == name


def test_forced_origin_must_fit(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", build(specs.get_spec("cifar_resnet20"), 3).state_dict())
    assert read_checkpoint(path, origin="torchvision").origin == "torchvision"
    assert read_checkpoint(path, origin="timm").origin == "timm"
    for origin in ("export.train", "torch.export", "lightning", "huggingface"):
        with pytest.raises(Exception, match=f"not of {origin}: "):
            read_checkpoint(path, origin=origin)
    with pytest.raises(Exception, match=r"unknown origin 'caffe'; known: export\.train"):
        read_checkpoint(path, origin="caffe")
