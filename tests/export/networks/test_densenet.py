"""DenseNets: every layer sees all maps before it."""

from __future__ import annotations

import torch

from export.networks.architecture import DenseNetSpec
from export.networks.build import build
from export.networks.densenet import DenseLayer
from export.networks.specs import SPECS

SPEC = DenseNetSpec((2, 3), growth=4, stem="cifar", stem_width=8, image_size=16)


def test_a_layer_appends_its_maps() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 4, 4)
    out = DenseLayer(8, SPEC).eval()(x)
    assert out.shape == (2, 12, 4, 4)
    assert torch.equal(out[:, :8], x)


def test_transitions_halve_channels_and_size() -> None:
    net = build(SPEC, 5, seed=0)
    x = torch.randn(1, 3, 16, 16)
    assert net.features(x).shape == (1, (8 + 2 * 4) // 2 + 3 * 4, 8, 8)
    assert net.features(x).shape[1] == SPEC.embedding_size == net.fc.in_features
    assert bool((net.features(x) >= 0).all())  # a ReLU is last, as the head expects
    assert net(x).shape == (1, 5)


def test_depth_counts_the_layers() -> None:
    """BC-100: three blocks of 16 layers of two convolutions, two transitions, stem and head."""
    spec = SPECS["cifar_densenet_bc100_12"]
    assert 2 * sum(spec.depths) + 2 + 2 == 100
