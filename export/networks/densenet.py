"""DenseNet-BC, built from a ``DenseNetSpec``; parameters carry torchvision's names, but for the head ``fc``.

Huang et al., "Densely Connected Convolutional Networks", 2016 (https://arxiv.org/abs/1608.06993).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.networks.architecture import DenseNetSpec
from export.networks.blocks import conv
from export.networks.classifier import Classifier, he_initialise


class DenseLayer(nn.Module):
    """BN-ReLU-conv 1x1, BN-ReLU-conv 3x3; gives its input with ``growth`` maps appended."""

    def __init__(self, inputs: int, spec: DenseNetSpec) -> None:
        super().__init__()
        inner = spec.bottleneck * spec.growth
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, inner, 1)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, spec.growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.norm1(x)))
        new = self.conv2(F.relu(self.norm2(new)))
        return torch.cat((x, new), dim=1)


def _transition(inputs: int) -> nn.Sequential:
    """Half the channels, half the resolution."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(inputs), relu=nn.ReLU(), conv=conv(inputs, inputs // 2, 1), pool=nn.AvgPool2d(2)
        )
    )


def _stem(spec: DenseNetSpec) -> OrderedDict[str, nn.Module]:
    if spec.cifar:
        return OrderedDict(conv0=conv(3, spec.stem_width, 3))
    return OrderedDict(
        conv0=conv(3, spec.stem_width, 7, 2),
        norm0=nn.BatchNorm2d(spec.stem_width),
        relu0=nn.ReLU(),
        pool0=nn.MaxPool2d(3, stride=2, padding=1),
    )


class DenseNet(Classifier):
    """The network of ``spec`` with ``classes`` outputs."""

    def __init__(self, spec: DenseNetSpec, classes: int) -> None:
        super().__init__()
        self.spec = spec
        parts, channels = _stem(spec), spec.stem_width
        for index, depth in enumerate(spec.depths, start=1):
            layers: OrderedDict[str, nn.Module] = OrderedDict(
                (f"denselayer{i + 1}", DenseLayer(channels + i * spec.growth, spec)) for i in range(depth)
            )
            parts[f"denseblock{index}"] = nn.Sequential(layers)
            channels += depth * spec.growth
            if index < len(spec.depths):
                parts[f"transition{index}"] = _transition(channels)
                channels //= 2
        parts[f"norm{len(spec.depths) + 1}"] = nn.BatchNorm2d(channels)
        parts["relu"] = nn.ReLU()
        # A submodule of this name, called as every network's ``features`` is, keeps torchvision's keys.
        self.features = nn.Sequential(parts)
        self.fc = nn.Linear(channels, classes)
        he_initialise(self)
