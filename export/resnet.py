"""One residual network, built from a ``Spec``.

Parameters carry torchvision's names (``conv1``, ``bn1``, ``layer1.0.conv1``,
``layer2.0.downsample.0``, ``fc``), so its state dicts load as they are.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.specs import EXPANSION, Shortcut, Spec


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class PadShortcut(nn.Module):
    """Shortcut A: every ``stride``-th pixel, the new channels zero, no parameters.

    The zeros go half before and half behind the channels, as in the CIFAR
    checkpoints in circulation; the paper leaves their place open.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.behind = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.behind))


def _shortcut(kind: Shortcut, inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """The module on the shortcut; None where the input passes as it is."""
    same_shape = inputs == outputs and stride == 1
    if same_shape and kind != "C":
        return None
    if kind == "A":
        return PadShortcut(inputs, outputs, stride)
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(shortcut, inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        return F.relu(out + identity)


class Bottleneck(nn.Module):
    """1x1 down, 3x3 (which carries the stride), 1x1 up by four, and the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        outputs = width * EXPANSION["bottleneck"]
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(shortcut, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        identity = x if self.downsample is None else self.downsample(x)
        return F.relu(out + identity)


_BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nn.Module):
    """The network of ``spec`` with ``classes`` outputs.

    ``features`` gives the last stage's maps ``[batch, embedding, h, w]``;
    ``forward`` pools them and gives logits ``[batch, classes]``. The input is
    a normalised float image batch ``[batch, 3, height, width]``.
    """

    def __init__(self, spec: Spec, classes: int) -> None:
        super().__init__()
        self.spec = spec
        imagenet = spec.stem == "imagenet"
        self.conv1 = _conv(3, spec.stem_width, 7, 2) if imagenet else _conv(3, spec.stem_width, 3)
        self.bn1 = nn.BatchNorm2d(spec.stem_width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        channels = spec.stem_width
        self.stages: list[str] = []
        for index, depth in enumerate(spec.depths):
            name = f"layer{index + 1}"
            width = spec.width * 2**index
            self.add_module(name, self._stage(channels, width, depth, stride=1 if index == 0 else 2))
            self.stages.append(name)
            channels = width * EXPANSION[spec.block]
        self.fc = nn.Linear(channels, classes)
        self._initialise()

    def _stage(self, channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
        block = _BLOCKS[self.spec.block]
        blocks = [block(channels, width, stride, self.spec.shortcut)]
        channels = width * EXPANSION[self.spec.block]
        blocks += [block(channels, width, 1, self.spec.shortcut) for _ in range(depth - 1)]
        return nn.Sequential(*blocks)

    def _initialise(self) -> None:
        """He initialisation (https://arxiv.org/abs/1502.01852), as the paper trains."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.fc(self.features(x).mean(dim=(2, 3))))


def parameter_count(module: nn.Module) -> int:
    """Trained parameters of ``module`` (BatchNorm statistics not counted)."""
    return sum(p.numel() for p in module.parameters())


def build(spec: Spec, classes: int, seed: int | None = None) -> ResNet:
    """The network in evaluation mode; with ``seed``, its weights are reproducible."""
    if seed is not None:
        torch.manual_seed(seed)
    return ResNet(spec, classes).eval()
