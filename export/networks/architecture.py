"""What an architecture is, as data: everything ``export.networks.build`` needs to build it.

A spec is checked when it is made: a block whose branch and shortcut disagree
in shape is refused there, by name and with both shapes, not when a tensor hits
it. The table of known architectures is ``export.networks.specs``; a JSON file with a
spec's fields is one too (``read_spec``).

Sources: He et al., "Deep Residual Learning for Image Recognition", 2015
(https://arxiv.org/abs/1512.03385); He et al., "Identity Mappings in Deep
Residual Networks", 2016 (https://arxiv.org/abs/1603.05027); Zagoruyko and
Komodakis, "Wide Residual Networks", 2016 (https://arxiv.org/abs/1605.07146); Xie et
al., "Aggregated Residual Transformations" (ResNeXt), 2016 (https://arxiv.org/abs/1611.05431);
He, T. et al., "Bag of Tricks", 2018 (https://arxiv.org/abs/1812.01187) for stems and
shortcuts C and D of timm's names; Huang et al., "Densely Connected Convolutional
Networks", 2016 (https://arxiv.org/abs/1608.06993); Srivastava et al., "Highway Networks",
2015 (https://arxiv.org/abs/1505.00387).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from export.errors import ExportError

Block = Literal["basic", "bottleneck"]
Stem = Literal["imagenet", "deep", "tiered", "cifar"]
Shortcut = Literal["none", "A", "B", "C"]
Order = Literal["post", "pre"]
Attention = Literal["none", "se", "eca"]

EXPANSION: Mapping[Block, int] = MappingProxyType({"basic": 1, "bottleneck": 4})
MAX_SPEC_BYTES: Final = 64 * 1024
_CONFIG: Final = ConfigDict(extra="forbid", strict=True)

Count = Annotated[int, Field(gt=0, le=65536)]
Depths = Annotated[tuple[Annotated[int, Field(gt=0, le=1000)], ...], Field(min_length=1, max_length=8)]


class Shape(NamedTuple):
    """Channels, height and width of a block's input or output for one image."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


class BlockPlan(NamedTuple):
    """One block: its name in the state dict, shapes, the channels inside it, its stride."""

    name: str
    input: Shape
    inner: int
    output: Shape
    stride: int

    @property
    def same_shape(self) -> bool:
        return self.input == self.output


def halved(size: int, stride: int) -> int:
    """What a padded convolution or pool of ``stride`` leaves of ``size`` pixels."""
    return -(-size // stride)


@dataclass(frozen=True, config=_CONFIG)
class Spec:
    """One residual network, or its plain control.

    block      -- ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1 with four times the channels).
    depths     -- blocks in each stage; every stage after the first halves the resolution.
    stem       -- ``imagenet``: 7x7 stride 2 and a 3x3 max-pool; ``deep``: three 3x3 in the place of the
                  7x7 (ResNet-C); ``tiered``: the same with growing widths; ``cifar``: one 3x3.
    shortcut   -- ``none``: a plain net; else what a block adds where the shape changes: ``A`` subsamples
                  and pads channels with zeros, ``B`` projects with a 1x1 convolution; ``C`` projects in every block.
    stem_width -- channels after the stem.
    width      -- channels of the first stage (before expansion); they double with each stage.
    image_size -- height and width, in pixels, that the net is trained for.
    order      -- ``post``: conv-BN-ReLU and a ReLU after the addition (2015); ``pre``: BN-ReLU-conv and
                  nothing after the addition (2016).
    stride_in  -- which convolution of a bottleneck strides: ``1x1`` (2015) or ``3x3`` (v1.5, torchvision, timm).
    groups, group_width -- of the 3x3 in a bottleneck (ResNeXt); the inner width is
                  ``groups * width * group_width / 64``, so ``group_width=128`` doubles it (wide ResNets).
    attention  -- ``se`` (squeeze and excitation) or ``eca`` before the addition.
    pool_shortcut -- projections average-pool and then do not stride (ResNet-D).
    blur_pool  -- strides are taken by a binomial filter (Zhang 2019, https://arxiv.org/abs/1904.11486).
    """

    block: Block
    depths: Depths
    stem: Stem
    shortcut: Shortcut
    stem_width: Count
    width: Count
    image_size: Count
    order: Order = "post"
    stride_in: Literal["1x1", "3x3"] = "3x3"
    groups: Count = 1
    group_width: Count = 64
    attention: Attention = "none"
    pool_shortcut: bool = False
    blur_pool: bool = False

    @property
    def embedding_size(self) -> int:
        """Channels of the pooled features."""
        return int(self.width * 2 ** (len(self.depths) - 1) * EXPANSION[self.block])

    @property
    def cifar(self) -> bool:
        """Takes small images whole: no cut from a larger one."""
        return self.stem == "cifar"

    def blocks(self) -> Iterator[BlockPlan]:
        """Every block in order, with its shapes at ``image_size``."""
        size = self.image_size if self.cifar else halved(halved(self.image_size, 2), 2)
        shape = Shape(self.stem_width, size, size)
        for stage, depth in enumerate(self.depths):
            channels = self.width * 2**stage
            inner = channels if self.block == "basic" else channels * self.group_width // 64 * self.groups
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                size = halved(shape.height, stride)
                output = Shape(channels * EXPANSION[self.block], size, size)
                yield BlockPlan(f"layer{stage + 1}.{index}", shape, inner, output, stride)
                shape = output

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.block == "basic" and (self.groups, self.group_width, self.stride_in) != (1, 64, "3x3"):
            raise ValueError("groups, group_width and stride_in are for bottleneck blocks")
        for block in self.blocks():
            if block.inner == 0 or block.inner % self.groups:
                raise ValueError(f"{block.name}: {block.inner} inner channels cannot be {self.groups} groups")
            if self.blur_pool and block.stride > 1 and block.input.height < 2:
                raise ValueError(f"{block.name}: {block.input} is too small for a filter of three pixels")
            shortcut = self._shortcut_shape(block)
            if shortcut != block.output:
                raise ValueError(
                    f"{block.name}: the shortcut gives {shortcut}, the branch {block.output}; "
                    f"shortcut {self.shortcut} pads channels and never drops them"
                )
        return self

    def _shortcut_shape(self, block: BlockPlan) -> Shape:
        if self.shortcut == "A" and block.input.channels > block.output.channels:
            return Shape(block.input.channels, block.output.height, block.output.width)
        return block.output


@dataclass(frozen=True, config=_CONFIG)
class DenseNetSpec:
    """One DenseNet: every layer of a dense block sees the maps of all layers before it.

    depths     -- layers in each dense block.
    growth     -- maps that a layer adds.
    stem       -- as for ``Spec``: ``imagenet`` or ``cifar``.
    stem_width -- channels after the stem.
    bottleneck -- a layer's 1x1 convolution makes this many times ``growth`` (the B of BC); transitions halve (the C).
    """

    depths: Depths
    growth: Count
    stem: Literal["imagenet", "cifar"]
    stem_width: Count
    image_size: Count
    bottleneck: Count = 4

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        size = self.image_size if self.cifar else halved(halved(self.image_size, 2), 2)
        for index in range(1, len(self.depths)):
            if size < 2:
                raise ValueError(f"transition{index}: nothing is left of {size}x{size} at half the size")
            size //= 2
        return self

    @property
    def cifar(self) -> bool:
        return self.stem == "cifar"

    @property
    def embedding_size(self) -> int:
        channels = self.stem_width
        for index, depth in enumerate(self.depths):
            channels = (channels // 2 if index else channels) + depth * self.growth
        return channels


@dataclass(frozen=True, config=_CONFIG)
class HighwaySpec:
    """One convolutional highway network: T(x) H(x) + (1 - T(x)) x, the gate T learnt.

    depths -- layers in each stage; each stage after the first starts with a plain layer of stride 2.
    width  -- channels of the first stage; they double with each stage.
    """

    depths: Depths
    width: Count
    image_size: Count

    @property
    def cifar(self) -> bool:
        return True

    @property
    def embedding_size(self) -> int:
        return int(self.width * 2 ** (len(self.depths) - 1))


AnySpec = Spec | DenseNetSpec | HighwaySpec


def spec_fields(spec: AnySpec) -> dict[str, JsonValue]:
    """``spec`` as the manifest keeps it; ``parse_spec`` reads it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()}


def parse_spec(fields: object, where: str) -> AnySpec:
    """The spec of JSON ``fields``; ``ExportError`` says what in ``where`` is wrong."""
    kind = _kind(fields)
    try:
        # As JSON, where a list may be a tuple and nothing else may be anything else.
        return TypeAdapter(kind).validate_json(json.dumps(fields))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ExportError(
            f"{where}: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from error


def _kind(fields: object) -> type[Spec] | type[DenseNetSpec] | type[HighwaySpec]:
    """Which spec ``fields`` are of, so that errors speak of that one alone."""
    if isinstance(fields, dict) and "growth" in fields:
        return DenseNetSpec
    if isinstance(fields, dict) and not fields.keys() & {"block", "stem", "shortcut"}:
        return HighwaySpec
    return Spec


def read_spec(path: Path) -> AnySpec:
    """The spec in the JSON file ``path``; ``ExportError`` where it is none or its shapes disagree."""
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise ExportError(f"{path}: larger than {MAX_SPEC_BYTES} bytes; a spec is a few lines")
        fields = TypeAdapter(dict[str, JsonValue]).validate_json(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror or error}") from error
    except ValidationError as error:
        raise ExportError(f"{path}: not a JSON object: {error.errors()[0]['msg']}") from error
    return parse_spec(fields, str(path))
