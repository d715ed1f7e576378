"""What residual networks are made of: blocks, shortcuts, attention, anti-aliasing.

Parameters carry torchvision's and timm's names (``conv1``, ``bn1``, ``se.fc1``,
``downsample.0``), so their state dicts load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.networks.architecture import Attention, BlockPlan, Spec

_SE_REDUCTION: Final = 16
_SE_MULTIPLE: Final = 8


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A padded convolution without bias: BatchNorm, which has one, follows or precedes it."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


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


class BlurPool(nn.Module):
    """Stride 2 behind a 3x3 binomial filter (Zhang 2019, https://arxiv.org/abs/1904.11486)."""

    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        filters = torch.outer(row, row).expand(channels, 1, 3, 3)
        self.register_buffer("filter", filters.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filter, stride=2, groups=len(self.filter))


def squeezed(channels: int) -> int:
    """Squeeze and excitation's inner width: a sixteenth, rounded to a multiple of eight, as timm's."""
    return max(_SE_MULTIPLE, int(channels / _SE_REDUCTION + _SE_MULTIPLE / 2) // _SE_MULTIPLE * _SE_MULTIPLE)


def eca_kernel(channels: int) -> int:
    """The odd number of channels that ECA looks at together; more for wider layers."""
    size = int(abs(math.log2(channels) + 1) / 2)
    return max(size if size % 2 else size + 1, 3)


class SqueezeExcitation(nn.Module):
    """Scales channels by what a small net makes of their means (Hu et al. 2017, https://arxiv.org/abs/1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = squeezed(channels)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(scale)


class EfficientChannelAttention(nn.Module):
    """Scales channels by a 1-d convolution over their means (Wang et al. 2019, https://arxiv.org/abs/1910.03151)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = eca_kernel(channels)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1)
        return x * torch.sigmoid(scale)[:, :, None, None]


_ATTENTION: Final[dict[Attention, type[nn.Module]]] = {"se": SqueezeExcitation, "eca": EfficientChannelAttention}


def make_shortcut(plan: BlockPlan, spec: Spec) -> nn.Module | None:
    """The module on the shortcut; None where the input passes as it is, or nothing does."""
    if spec.shortcut == "none" or (plan.same_shape and spec.shortcut != "C"):
        return None
    inputs, outputs = plan.input.channels, plan.output.channels
    if spec.shortcut == "A":
        return PadShortcut(inputs, outputs, plan.stride)
    layers: list[nn.Module] = [conv(inputs, outputs, 1, 1 if spec.pool_shortcut else plan.stride)]
    if spec.pool_shortcut:
        pool = nn.AvgPool2d(2, plan.stride, ceil_mode=True, count_include_pad=False)
        layers.insert(0, pool if plan.stride > 1 else nn.Identity())
    if spec.order == "post":
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers)


class LayerPlan(NamedTuple):
    """One convolution of a block's branch."""

    kernel: int
    inputs: int
    outputs: int
    stride: int = 1
    groups: int = 1

    def build(self, stride: int) -> nn.Conv2d:
        return conv(self.inputs, self.outputs, self.kernel, stride, self.groups)


def branch_layers(plan: BlockPlan, spec: Spec) -> list[LayerPlan]:
    """The convolutions of ``plan``'s branch, in order."""
    inputs, inner, outputs = plan.input.channels, plan.inner, plan.output.channels
    if spec.block == "basic":
        return [LayerPlan(3, inputs, inner, plan.stride), LayerPlan(3, inner, outputs)]
    first, second = (plan.stride, 1) if spec.stride_in == "1x1" else (1, plan.stride)
    return [
        LayerPlan(1, inputs, inner, first),
        LayerPlan(3, inner, inner, second, spec.groups),
        LayerPlan(1, inner, outputs),
    ]


class ResidualBlock(nn.Module):
    """A few convolutions and, but for plain nets, the shortcut around them.

    ``post``: conv, BN, ReLU and so on; the last ReLU follows the addition.
    ``pre``: BN, ReLU, conv and so on; nothing follows it, and a projection takes
    what the first BN and ReLU make of the input.
    """

    def __init__(self, plan: BlockPlan, spec: Spec) -> None:
        super().__init__()
        self.pre, self.plain = spec.order == "pre", spec.shortcut == "none"
        layers = branch_layers(plan, spec)
        self.depth = len(layers)
        self.blurred = next((i for i, layer in enumerate(layers, 1) if spec.blur_pool and layer.stride > 1), 0)
        for i, layer in enumerate(layers, start=1):
            self.add_module(f"conv{i}", layer.build(1 if i == self.blurred else layer.stride))
            self.add_module(f"bn{i}", nn.BatchNorm2d(layer.inputs if self.pre else layer.outputs))
            if i == self.blurred:
                self.aa = BlurPool(layer.outputs)
        attention = _ATTENTION.get(spec.attention)
        self.se = attention(plan.output.channels) if attention else None
        self.downsample = make_shortcut(plan, spec)

    def _steps(self) -> Iterator[tuple[int, nn.Module, nn.Module]]:
        for i in range(1, self.depth + 1):
            yield i, self.get_submodule(f"conv{i}"), self.get_submodule(f"bn{i}")

    def branch(self, x: Tensor) -> Tensor:
        """F(x), what is added to the shortcut."""
        for i, convolution, norm in self._steps():
            if self.pre:
                x = convolution(F.relu(norm(x)))
            else:
                x = norm(convolution(x))
                x = F.relu(x) if i < self.depth else x
            if i == self.blurred:
                x = self.aa(x)
        return cast("Tensor", self.se(x)) if self.se is not None else x

    def shortcut(self, x: Tensor) -> Tensor:
        """What the input passes as."""
        if self.downsample is None:
            return x
        if self.pre and not isinstance(self.downsample, PadShortcut):
            x = F.relu(self.get_submodule("bn1")(x))
        return cast("Tensor", self.downsample(x))

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(x)
        if not self.plain:
            out = out + self.shortcut(x)
        return out if self.pre else F.relu(out)
