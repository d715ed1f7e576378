"""Highway networks: a learnt gate between what a layer makes and what it got."""

from __future__ import annotations

import pytest
import torch

from export.networks.build import build
from export.networks.highway import GATE_BIAS, HighwayLayer
from export.networks.specs import SPECS

X = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("bias", "open_"), [(-50.0, False), (50.0, True)])
def test_the_gate_chooses_between_the_input_and_the_layer(bias: float, open_: bool) -> None:
    torch.manual_seed(0)
    layer = HighwayLayer(4)
    torch.nn.init.zeros_(layer.gate.weight)
    torch.nn.init.constant_(layer.gate.bias, bias)
    expected = torch.relu(layer.conv(X)) if open_ else X
    torch.testing.assert_close(layer(X), expected)


def test_gates_start_nearly_shut() -> None:
    net = build(SPECS["cifar_highway11"], 10, seed=0)
    gates = [layer.gate for layer in net.modules() if isinstance(layer, HighwayLayer)]
    assert len(gates) == 3 + 2 + 2
    assert all(bool((gate.bias == GATE_BIAS).all()) for gate in gates)


@pytest.mark.parametrize("depth", [11, 19, 32])
def test_depth_counts_the_layers(depth: int) -> None:
    assert sum(SPECS[f"cifar_highway{depth}"].depths) + 2 == depth


def test_shapes() -> None:
    net = build(SPECS["cifar_highway11"], 7, seed=0)
    assert net.features(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 8, 8)
    assert net(torch.zeros(3, 3, 32, 32)).shape == (3, 7)
