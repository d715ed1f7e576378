"""Convolutional highway networks, built from a ``HighwaySpec``.

Srivastava et al., "Highway Networks", 2015 (https://arxiv.org/abs/1505.00387):
layers whose shortcut is gated by a learnt T(x) instead of free, and which have
no BatchNorm. The paper's own widths came from other works; these have the CIFAR
ResNets' stages, so that the two can be set side by side.
"""

from __future__ import annotations

from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.networks.architecture import HighwaySpec
from export.networks.classifier import Classifier, he_initialise

# Below zero, so that training starts with gates that let the input pass (section 2.2).
GATE_BIAS: Final = -2.0


class HighwayLayer(nn.Module):
    """T(x) H(x) + (1 - T(x)) x with H = ReLU(conv) and T = sigmoid(conv)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.gate = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * F.relu(self.conv(x)) + (1 - gate) * x


class PlainLayer(nn.Module):
    """ReLU(conv), where channels or resolution change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Highway(Classifier):
    """The network of ``spec`` with ``classes`` outputs."""

    def __init__(self, spec: HighwaySpec, classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.stem = PlainLayer(3, spec.width, 1)
        layers: list[nn.Module] = []
        for stage, depth in enumerate(spec.depths):
            width = spec.width * 2**stage
            gated = depth
            if stage:
                layers.append(PlainLayer(width // 2, width, 2))
                gated -= 1
            layers += [HighwayLayer(width) for _ in range(gated)]
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(spec.embedding_size, classes)
        he_initialise(self)
        for layer in layers:
            if isinstance(layer, HighwayLayer) and layer.gate.bias is not None:
                nn.init.constant_(layer.gate.bias, GATE_BIAS)

    def features(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.layers(self.stem(x)))
