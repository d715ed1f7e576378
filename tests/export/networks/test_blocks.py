"""Blocks and shortcuts, each against its definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.networks.architecture import BlockPlan, Shape, Spec
from export.networks.blocks import (
    BlurPool,
    EfficientChannelAttention,
    PadShortcut,
    ResidualBlock,
    SqueezeExcitation,
    eca_kernel,
)
from tests.export.conftest import perturb

SAME = BlockPlan("layer1.1", Shape(8, 6, 6), 8, Shape(8, 6, 6), 1)
DOWN = BlockPlan("layer2.0", Shape(8, 6, 6), 16, Shape(16, 3, 3), 2)
BASIC = Spec("basic", (2, 2), "cifar", "B", stem_width=8, width=8, image_size=6)


def block(plan: BlockPlan, spec: Spec) -> ResidualBlock:
    torch.manual_seed(0)
    return perturb(ResidualBlock(plan, spec)).eval()


def images(channels: int = 8, size: int = 6) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def bn(module: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(module, nn.BatchNorm2d)
    return F.batch_norm(x, module.running_mean, module.running_var, module.weight, module.bias)


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


def test_a_post_activation_block_is_the_2015_papers() -> None:
    b, x = block(DOWN, BASIC), images()
    branch = bn(b.bn2, b.conv2(F.relu(bn(b.bn1, b.conv1(x)))))
    projection, norm = b.downsample
    torch.testing.assert_close(b(x), F.relu(branch + bn(norm, projection(x))))


def test_a_pre_activation_block_is_the_2016_papers() -> None:
    """Nothing after the addition; the projection shares the first BN and ReLU."""
    b, x = block(DOWN, replace(BASIC, order="pre")), images()
    first = F.relu(bn(b.bn1, x))
    branch = b.conv2(F.relu(bn(b.bn2, b.conv1(first))))
    (projection,) = b.downsample
    torch.testing.assert_close(b(x), branch + projection(first))
    same = block(SAME, replace(BASIC, order="pre"))
    torch.testing.assert_close(same(x), same.branch(x) + x)


def test_a_plain_block_has_no_shortcut() -> None:
    b, x = block(DOWN, replace(BASIC, shortcut="none")), images()
    assert b.downsample is None
    torch.testing.assert_close(b(x), F.relu(b.branch(x)))


@pytest.mark.parametrize(
    ("shortcut", "same", "down"),
    [("A", None, PadShortcut), ("B", None, nn.Sequential), ("C", nn.Sequential, nn.Sequential)],
)
def test_which_blocks_have_something_on_the_shortcut(shortcut: str, same: type | None, down: type) -> None:
    spec = replace(BASIC, shortcut=shortcut)
    assert isinstance(block(SAME, spec).downsample, same or type(None))
    assert isinstance(block(DOWN, spec).downsample, down)


@pytest.mark.parametrize(("stride_in", "strides"), [("1x1", [2, 1, 1]), ("3x3", [1, 2, 1])])
def test_where_a_bottleneck_strides(stride_in: str, strides: list[int]) -> None:
    spec = replace(BASIC, block="bottleneck", stride_in=stride_in)
    b = block(DOWN._replace(output=Shape(64, 3, 3)), spec)
    assert [b.get_submodule(f"conv{i}").stride[0] for i in (1, 2, 3)] == strides
    assert b(images()).shape == (2, 64, 3, 3)


def test_blur_pool_is_a_binomial_filter_before_the_stride() -> None:
    x = images(3, 5)
    out = BlurPool(3)(x)
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    weights = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    expected = torch.stack(
        [(padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * weights).sum((2, 3)) for i in range(3) for j in range(3)]
    )
    torch.testing.assert_close(out, expected.permute(1, 2, 0).view(2, 3, 3, 3))
    assert not BlurPool(3).state_dict()


@pytest.mark.parametrize("channels", [8, 64, 100, 2048])
def test_attention_scales_whole_channels_by_less_than_one(channels: int) -> None:
    torch.manual_seed(0)
    for attention in (SqueezeExcitation(channels), EfficientChannelAttention(channels)):
        x = torch.rand(2, channels, 3, 3) + 0.1
        ratio = attention(x) / x
        assert bool(((ratio > 0) & (ratio < 1)).all())
        torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))


@pytest.mark.parametrize(("channels", "kernel"), [(1, 3), (64, 3), (256, 5), (512, 5), (2048, 7)])
def test_eca_looks_at_an_odd_number_of_channels(channels: int, kernel: int) -> None:
    """Kernel sizes of the paper's formula with gamma 2 and b 1, as timm rounds them."""
    from timm.layers import EcaModule

    assert eca_kernel(channels) == EcaModule(channels).conv.kernel_size[0]
    assert eca_kernel(channels) % 2 == 1
