"""The architectures, as a table of data.

One ``Spec`` says all that ``export.resnet.ResNet`` needs to build a network.
Names are torchvision's for the ImageNet nets; the CIFAR nets carry a
``cifar_`` prefix, as in the common model zoos.

Sources: He et al., "Deep Residual Learning for Image Recognition", 2015
(https://arxiv.org/abs/1512.03385): section 3.3 for the shortcuts, table 1 for
the ImageNet nets, section 4.2 for the CIFAR nets. Zagoruyko and Komodakis,
"Wide Residual Networks", 2016 (https://arxiv.org/abs/1605.07146) for widths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from export.errors import ExportError

Block = Literal["basic", "bottleneck"]
Stem = Literal["imagenet", "cifar"]
Shortcut = Literal["A", "B", "C"]

EXPANSION: Mapping[Block, int] = MappingProxyType({"basic": 1, "bottleneck": 4})


@dataclass(frozen=True)
class Spec:
    """One residual network.

    block     -- ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1; the stride in the 3x3).
    depths    -- blocks in each stage; every stage after the first halves the resolution.
    stem      -- ``imagenet``: 7x7 stride 2 and a 3x3 max-pool; ``cifar``: one 3x3.
    shortcut  -- where the shape changes: ``A`` subsamples and pads channels with zeros,
                 ``B`` projects with a 1x1 convolution; ``C`` projects in every block.
    stem_width -- channels after the stem.
    width     -- channels inside the first stage's blocks; it doubles with each stage.
    image_size -- height and width, in pixels, that the net is trained for.
    """

    block: Block
    depths: tuple[int, ...]
    stem: Stem
    shortcut: Shortcut
    stem_width: int
    width: int
    image_size: int

    @property
    def embedding_size(self) -> int:
        """Channels of the pooled features."""
        return int(self.width * 2 ** (len(self.depths) - 1) * EXPANSION[self.block])


def _imagenet(block: Block, *depths: int) -> Spec:
    return Spec(block, depths, "imagenet", "B", stem_width=64, width=64, image_size=224)


def _cifar(depth: int) -> Spec:
    """The CIFAR net of ``depth`` = 6n + 2 layers."""
    blocks = (depth - 2) // 6
    return Spec("basic", (blocks,) * 3, "cifar", "A", stem_width=16, width=16, image_size=32)


SPECS: Mapping[str, Spec] = MappingProxyType(
    {
        "resnet18": _imagenet("basic", 2, 2, 2, 2),
        "resnet34": _imagenet("basic", 3, 4, 6, 3),
        "resnet50": _imagenet("bottleneck", 3, 4, 6, 3),
        "resnet101": _imagenet("bottleneck", 3, 4, 23, 3),
        "resnet152": _imagenet("bottleneck", 3, 8, 36, 3),
        "cifar_resnet20": _cifar(20),
        "cifar_resnet32": _cifar(32),
        "cifar_resnet44": _cifar(44),
        "cifar_resnet56": _cifar(56),
        "cifar_resnet110": _cifar(110),
        # The default model: wide and shallow learns more in an hour of two cores than narrow and deep.
        "cifar_resnet16_wide2": Spec("basic", (2, 2, 3), "cifar", "B", stem_width=16, width=32, image_size=32),
    }
)


def get_spec(name: str) -> Spec:
    """The spec called ``name``; ``ExportError`` lists the known names."""
    if name not in SPECS:
        raise ExportError(f"unknown architecture {name!r}; known: {', '.join(SPECS)}")
    return SPECS[name]
