"""One residual network, built from a ``Spec``.

Parameters carry torchvision's and timm's names (``conv1``, ``bn1``,
``layer1.0.conv1``, ``layer2.0.downsample.0``, ``fc``).
"""

from __future__ import annotations

from collections import defaultdict
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from export.networks.architecture import Spec
from export.networks.blocks import BlurPool, ResidualBlock, conv
from export.networks.classifier import Classifier, he_initialise


def _stem(spec: Spec) -> nn.Module:
    """What comes first, named ``conv1``; strides by two for ImageNet."""
    width = spec.stem_width
    if spec.stem == "cifar":
        return conv(3, width, 3)
    if spec.stem == "imagenet":
        return conv(3, width, 7, 2)
    first, second = (width * 3 // 8, width // 2) if spec.stem == "tiered" else (width // 2, width // 2)
    return nn.Sequential(
        conv(3, first, 3, 2),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        conv(first, second, 3),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        conv(second, width, 3),
    )


def _pool(spec: Spec) -> nn.Module:
    if spec.cifar:
        return nn.Identity()
    if spec.blur_pool:
        return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), BlurPool(spec.stem_width))
    return nn.MaxPool2d(3, stride=2, padding=1)


class ResNet(Classifier):
    """The network of ``spec`` with ``classes`` outputs; plain where its shortcut is ``none``."""

    def __init__(self, spec: Spec, classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.conv1 = _stem(spec)
        # Pre-activation blocks normalise their own input, and leave the last of it to ``norm``.
        self.bn1 = nn.BatchNorm2d(spec.stem_width) if spec.order == "post" else None
        self.maxpool = _pool(spec)
        stages: dict[str, list[ResidualBlock]] = defaultdict(list)
        for plan in spec.blocks():
            stages[plan.name.partition(".")[0]].append(ResidualBlock(plan, spec))
        self.stages = list(stages)
        for name, blocks in stages.items():
            self.add_module(name, nn.Sequential(*blocks))
        self.norm = nn.BatchNorm2d(spec.embedding_size) if spec.order == "pre" else None
        self.fc = nn.Linear(spec.embedding_size, classes)
        he_initialise(self)

    def features(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.bn1 is not None:
            x = F.relu(self.bn1(x))
        x = self.maxpool(x)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x if self.norm is None else F.relu(cast("Tensor", self.norm(x)))
