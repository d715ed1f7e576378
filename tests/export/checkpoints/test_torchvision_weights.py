"""torchvision's published files are known by their hash, and everything that belongs to them with it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from export.checkpoints import torchvision_weights
from export.checkpoints.checkpoint import read_checkpoint
from export.networks.build import build
from export.networks.specs import get_spec
from tests.export.origin_files import save


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare state dict with torchvision's names."""
    return save(tmp_path_factory.mktemp("torchvision") / "a.pth", build(get_spec("resnet18"), 5, seed=0).state_dict())


def test_published_file_is_known_by_its_hash(resnet18: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(resnet18.read_bytes()).hexdigest()
    published = torchvision_weights.published("11ad3fa6" + "0" * 56)
    assert published
    monkeypatch.setattr(torchvision_weights, "_table", lambda: {digest[:8]: replace(published, labels=("a",) * 5)})
    about = read_checkpoint(resnet18).about
    assert about.source == "torchvision's resnet50 IMAGENET1K_V2"
    assert about.architecture == "resnet50"
    assert about.input
    assert (about.input.size, about.input.resize, about.input.interpolation) == (224, 232, "bilinear")


@pytest.mark.parametrize(
    ("digits", "name", "resize"),
    [("f37072fd", "resnet18", 256), ("0676ba61", "resnet50", 256), ("9ba9bcbe", "wide_resnet50_2", 232)],
)
def test_torchvisions_table(digits: str, name: str, resize: int) -> None:
    about = torchvision_weights.published(digits.ljust(64, "0"))
    assert about
    assert about.architecture == name
    assert about.labels
    assert (len(about.labels), about.labels[0]) == (1000, "tench")
    assert about.input
    assert about.input.resize == resize


def test_unpublished_file_is_nobodys() -> None:
    assert torchvision_weights.published("0" * 64) is None
