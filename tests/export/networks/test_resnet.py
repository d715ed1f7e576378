"""The residual network as a whole; its numbers against its peers' are in test_peers.py."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from export.networks.architecture import Spec
from export.networks.build import build, skeleton
from export.networks.specs import SPECS, get_spec
from tests.export.conftest import TINY

FAST = [name for name, spec in SPECS.items() if sum(spec.depths) <= 120]


def _lane(name: str) -> object:
    return name if name in FAST else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [_lane(name) for name in SPECS])
def test_embedding_size_is_the_heads_input(name: str) -> None:
    net = skeleton(get_spec(name), 3)
    assert net.fc.in_features == SPECS[name].embedding_size
    assert net.fc.out_features == 3


@pytest.mark.parametrize("name", [name for name in SPECS if re.fullmatch(r"cifar_(plain|resnet|preresnet)\d+", name)])
def test_depth_in_the_name_counts_the_layers(name: str) -> None:
    """Convolutions of the branches, the stem's and the head, as the paper counts."""
    spec = SPECS[name]
    assert isinstance(spec, Spec)
    convolutions = {"basic": 2, "bottleneck": 3}[spec.block]
    assert name.endswith(str(convolutions * sum(spec.depths) + 2))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "plain34", "resnet26t", "resnetblur18", "cifar_preresnet20"])
def test_features_have_the_shape_of_the_last_block(name: str) -> None:
    spec = SPECS[name]
    assert isinstance(spec, Spec)
    *_, last = spec.blocks()
    with torch.device("meta"):
        images = torch.zeros(2, 3, spec.image_size, spec.image_size)
    assert skeleton(spec, 5).features(images).shape == (2, *last.output)


def test_plain_nets_have_the_same_weights_but_for_projections() -> None:
    plain, residual = (skeleton(SPECS[name], 10).state_dict() for name in ("plain34", "resnet34"))
    assert residual.keys() - plain.keys() == {key for key in residual if ".downsample." in key}
    assert not plain.keys() - residual.keys()


def test_pre_activation_ends_with_its_own_norm() -> None:
    net = build(SPECS["cifar_preresnet20"], 10, seed=0)
    assert "norm.weight" in net.state_dict()
    assert not any(key.startswith("bn1.") for key in net.state_dict())
    features = net.features(torch.randn(1, 3, 32, 32))
    assert bool((features >= 0).all())


def test_the_logits_are_the_head_on_the_pooled_features() -> None:
    net, x = build(TINY, 4, seed=0), torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), net.fc(net.features(x).mean((2, 3))))


def test_same_seed_same_weights() -> None:
    def weights(seed: int) -> Tensor:
        conv = build(TINY, 4, seed=seed).get_submodule("conv1")
        assert isinstance(conv, nn.Conv2d)
        return conv.weight

    assert torch.equal(weights(5), weights(5))
    assert not torch.equal(weights(5), weights(6))
