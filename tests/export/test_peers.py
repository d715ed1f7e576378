"""Every network that torchvision or timm has too, against their module: same weights, same logits, both ways.

Weights are seeded and random, with BatchNorm statistics as training leaves them.
"""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

from export.checkpoints.origins import own_names
from export.networks.build import build, skeleton
from export.networks.costs import cost
from export.networks.specs import SPECS

from .conftest import perturb

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of their imports
    import timm

CLASSES = 10
TORCHVISION = frozenset(torchvision.models.list_models())
TIMM = frozenset(timm.list_models())
SHARED = [(name, "torchvision") for name in SPECS if name in TORCHVISION]
SHARED += [(name, "timm") for name in SPECS if name in TIMM]
# The larger ones of a family have nothing that the smaller do not have.
FAST_BUDGET = 5.5e9


def _lane(name: str, peer: str) -> object:
    slow = cost(SPECS[name], 1000).multiply_adds > FAST_BUDGET or (peer == "timm" and name in TORCHVISION)
    return pytest.param(name, peer, marks=[pytest.mark.slow] if slow else [], id=f"{peer}-{name}")


def theirs(name: str, peer: str) -> nn.Module:
    torch.manual_seed(1)
    if peer == "timm":
        return perturb(timm.create_model(name, num_classes=CLASSES)).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The default weight initialization")
        return perturb(torchvision.models.get_model(name, num_classes=CLASSES)).eval()


def test_the_families_are_all_here() -> None:
    """So that a renamed entry does not drop out of the comparison."""
    assert len(SHARED) >= 50
    assert {"resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121"} <= {
        n for n, p in SHARED if p == "torchvision"
    }
    assert {"resnetv2_50", "seresnet50", "resnet50d", "ecaresnet50d", "resnetblur50"} <= {
        n for n, p in SHARED if p == "timm"
    }


@pytest.mark.parametrize(("name", "peer"), [_lane(*shared) for shared in SHARED])
def test_logits_are_the_peers_both_ways(name: str, peer: str) -> None:
    their_net, our_net = theirs(name, peer), perturb(build(SPECS[name], CLASSES, seed=2), seed=2)
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(1, 3, *size, generator=generator) for size in ((224, 224), (97, 131))]
    original = {key: value.clone() for key, value in their_net.state_dict().items()}

    ours_by_their_names = _translated(our_net.state_dict(), original)
    our_logits = _logits(our_net, images)
    renamed, _ = own_names(original)
    our_net.load_state_dict(renamed)
    _assert_same(_logits(our_net, images), _logits(their_net, images))

    their_net.load_state_dict(ours_by_their_names)
    _assert_same(_logits(their_net, images), our_logits)


def _translated(ours: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """``ours`` by the names and in the shapes of ``like``: the way back of the translation."""
    # Every tensor is filled with its place in the dict, by which it is found again under its new name.
    marked = {key: torch.full(value.shape, float(place)) for place, (key, value) in enumerate(like.items())}
    places = {int(value.flatten()[0]): own for own, value in own_names(marked)[0].items()}
    return {key: ours[places[place]].clone().view(value.shape) for place, (key, value) in enumerate(like.items())}


def _logits(net: nn.Module, images: list[Tensor]) -> list[Tensor]:
    with torch.inference_mode():
        return [net(image) for image in images]


def _assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, peers in zip(found, expected, strict=True):
        scale = float(peers.abs().max())
        torch.testing.assert_close(ours, peers, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", sorted(TORCHVISION & SPECS.keys()))
def test_keys_are_torchvisions_in_their_order(name: str) -> None:
    with torch.device("meta"):
        peers = torchvision.models.get_model(name).state_dict()
    expected = {key.replace("classifier.", "fc."): value.shape for key, value in peers.items()}
    ours = {key: value.shape for key, value in skeleton(SPECS[name], 1000).state_dict().items()}
    assert list(ours.items()) == list(expected.items())
