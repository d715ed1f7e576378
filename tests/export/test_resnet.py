"""The networks against torchvision's and the paper's."""

from __future__ import annotations

import pytest
import torch
import torchvision.models
from torch import Tensor

from export.errors import ExportError
from export.resnet import PadShortcut, ResNet, build, parameter_count
from export.specs import SPECS, get_spec

from .conftest import TINY, perturb

TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@pytest.mark.parametrize("name", TORCHVISION)
def test_keys_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours = ResNet(get_spec(name), 1000).state_dict()
        theirs = torchvision.models.get_model(name).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert list(ours) == list(theirs)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_logits_are_torchvisions(name: str) -> None:
    ours = perturb(build(get_spec(name), 1000, seed=3))
    theirs = torchvision.models.get_model(name).eval()
    theirs.load_state_dict(ours.state_dict())
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for size in ((224, 224), (97, 131)):
            images = torch.randn(1, 3, *size, generator=generator)
            expected = theirs(images)
            scale = float(expected.abs().max())
            torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")])
def test_cifar_parameter_counts_are_published_ones(depth: int, millions: str) -> None:
    with torch.device("meta"):
        count = parameter_count(ResNet(get_spec(f"cifar_resnet{depth}"), 10))
    digits = len(millions.split(".")[1])
    assert f"{count / 1e6:.{digits}f}" == millions


@pytest.mark.parametrize("name", SPECS)
def test_embedding_size_is_the_heads_input(name: str) -> None:
    with torch.device("meta"):
        net = ResNet(get_spec(name), 3)
    assert net.fc.in_features == net.spec.embedding_size
    assert net.fc.out_features == 3


def test_pad_shortcut_subsamples_and_centres_the_channels() -> None:
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).view(1, 2, 4, 4)
    out = PadShortcut(2, 6, stride=2)(x)
    assert out.shape == (1, 6, 2, 2)
    assert torch.equal(out[:, 2:4], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 4:].any()


def test_pad_shortcut_with_an_odd_difference_keeps_every_channel() -> None:
    x = torch.ones(1, 2, 2, 2)
    out = PadShortcut(2, 5, stride=1)(x)
    assert out.sum(dim=(0, 2, 3)).tolist() == [0, 4, 4, 0, 0]


def test_same_seed_same_weights() -> None:
    def weights(seed: int) -> Tensor:
        return build(TINY, 4, seed=seed).conv1.weight

    assert torch.equal(weights(5), weights(5))
    assert not torch.equal(weights(5), weights(6))


def test_unknown_architecture_lists_the_known() -> None:
    with pytest.raises(ExportError, match="resnet50"):
        get_spec("resnet51")
