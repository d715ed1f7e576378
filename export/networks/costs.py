"""Parameters and multiply-adds of a spec, counted from its shapes alone, as the papers count them.

Convolutions and the head; BatchNorm, pooling and activations are left out of
the multiply-adds, and BatchNorm's statistics out of the parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from export.networks.architecture import AnySpec, BlockPlan, DenseNetSpec, HighwaySpec, Spec, halved
from export.networks.blocks import branch_layers, eca_kernel, squeezed


class Cost(NamedTuple):
    """Trained parameters, and multiply-adds for one image."""

    parameters: int
    multiply_adds: int


def cost(spec: AnySpec, classes: int) -> Cost:
    """What the network of ``spec`` with ``classes`` outputs costs at its ``image_size``."""
    head = _conv(spec.embedding_size, classes, 1, 1, bias=True)
    if isinstance(spec, DenseNetSpec):
        parts = [head, *_densenet(spec)]
    elif isinstance(spec, HighwaySpec):
        parts = [head, *_highway(spec)]
    else:
        parts = [head, *_resnet(spec)]
    return Cost(sum(p.parameters for p in parts), sum(p.multiply_adds for p in parts))


def _conv(inputs: int, outputs: int, kernel: int, pixels: int, groups: int = 1, bias: bool = False) -> Cost:
    """A convolution that makes ``pixels`` of output (one for a linear layer)."""
    weights = inputs // groups * outputs * kernel**2
    return Cost(weights + bias * outputs, weights * pixels)


def _norm(channels: int) -> Cost:
    return Cost(2 * channels, 0)


def _resnet(spec: Spec) -> Iterator[Cost]:
    yield from _stem(spec)
    for plan in spec.blocks():
        yield from _branch(plan, spec)
        yield from _shortcut(plan, spec)
    yield _norm(spec.stem_width if spec.order == "post" else spec.embedding_size)


def _stem(spec: Spec) -> Iterator[Cost]:
    width, size = spec.stem_width, spec.image_size if spec.cifar else halved(spec.image_size, 2)
    if spec.stem in ("imagenet", "cifar"):
        yield _conv(3, width, 7 if spec.stem == "imagenet" else 3, size**2)
    else:
        first, second = (width * 3 // 8 if spec.stem == "tiered" else width // 2), width // 2
        for inputs, outputs in ((3, first), (first, second), (second, width)):
            yield _conv(inputs, outputs, 3, size**2)
        yield _norm(first + second)
    if spec.blur_pool and not spec.cifar:
        yield _blur(width, halved(size, 2))


def _blur(channels: int, size: int) -> Cost:
    """A filter without parameters."""
    return Cost(0, channels * 9 * size**2)


def _branch(plan: BlockPlan, spec: Spec) -> Iterator[Cost]:
    size, blurred = plan.input.height, False
    for layer in branch_layers(plan, spec):
        blur = spec.blur_pool and layer.stride > 1
        after = halved(size, layer.stride)
        yield _conv(layer.inputs, layer.outputs, layer.kernel, (size if blur else after) ** 2, layer.groups)
        yield _norm(layer.inputs if spec.order == "pre" else layer.outputs)
        if blur and not blurred:
            yield _blur(layer.outputs, after)
            blurred = True
        size = after
    channels = plan.output.channels
    if spec.attention == "se":
        inner = squeezed(channels)
        yield _conv(channels, inner, 1, 1, bias=True)
        yield _conv(inner, channels, 1, 1, bias=True)
    elif spec.attention == "eca":
        yield Cost(eca_kernel(channels), eca_kernel(channels) * channels)


def _shortcut(plan: BlockPlan, spec: Spec) -> Iterator[Cost]:
    if spec.shortcut == "C" or (spec.shortcut == "B" and not plan.same_shape):
        yield _conv(plan.input.channels, plan.output.channels, 1, plan.output.height * plan.output.width)
        if spec.order == "post":
            yield _norm(plan.output.channels)


def _densenet(spec: DenseNetSpec) -> Iterator[Cost]:
    channels, size = spec.stem_width, spec.image_size
    if spec.cifar:
        yield _conv(3, channels, 3, size**2)
    else:
        size = halved(size, 2)
        yield _conv(3, channels, 7, size**2)
        yield _norm(channels)
        size = halved(size, 2)
    inner = spec.bottleneck * spec.growth
    for index, depth in enumerate(spec.depths):
        if index:
            yield _norm(channels)
            yield _conv(channels, channels // 2, 1, size**2)
            channels, size = channels // 2, size // 2
        for _ in range(depth):
            yield _norm(channels)
            yield _conv(channels, inner, 1, size**2)
            yield _norm(inner)
            yield _conv(inner, spec.growth, 3, size**2)
            channels += spec.growth
    yield _norm(channels)


def _highway(spec: HighwaySpec) -> Iterator[Cost]:
    width, size = spec.width, spec.image_size
    yield _conv(3, width, 3, size**2, bias=True)
    for stage, depth in enumerate(spec.depths):
        if stage:
            width, size = 2 * width, halved(size, 2)
            yield _conv(width // 2, width, 3, size**2, bias=True)
        for _ in range(2 * (depth - bool(stage))):  # H and T
            yield _conv(width, width, 3, size**2, bias=True)
