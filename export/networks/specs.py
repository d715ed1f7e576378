"""The known architectures, as a table of data.

Names are torchvision's, then timm's, where either has the network; ``_v1`` is
the 2015 form with the stride in the 1x1 convolution. The nets for CIFAR's
32x32 images carry a ``cifar_`` prefix, as in the common model zoos.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from export.errors import ExportError
from export.networks.architecture import AnySpec, Block, DenseNetSpec, HighwaySpec, Order, Shortcut, Spec, read_spec


def _imagenet(block: Block, *depths: int, **fields: Any) -> Spec:
    return replace(Spec(block, depths, "imagenet", "B", stem_width=64, width=64, image_size=224), **fields)


def _cifar(depth: int, shortcut: Shortcut = "A", order: Order = "post") -> Spec:
    """The CIFAR net of ``depth`` = 6n + 2 layers: basic blocks."""
    blocks = (depth - 2) // 6
    return Spec("basic", (blocks,) * 3, "cifar", shortcut, stem_width=16, width=16, image_size=32, order=order)


def _cifar_bottleneck(depth: int, shortcut: Shortcut = "B", order: Order = "post") -> Spec:
    """The CIFAR net of ``depth`` = 9n + 2 layers: bottlenecks of 64, 128 and 256 channels."""
    blocks = (depth - 2) // 9
    return Spec("bottleneck", (blocks,) * 3, "cifar", shortcut, stem_width=16, width=16, image_size=32, order=order)


_R18, _R34 = _imagenet("basic", 2, 2, 2, 2), _imagenet("basic", 3, 4, 6, 3)
_R26, _R50 = _imagenet("bottleneck", 2, 2, 2, 2), _imagenet("bottleneck", 3, 4, 6, 3)
_R101, _R152 = _imagenet("bottleneck", 3, 4, 23, 3), _imagenet("bottleneck", 3, 8, 36, 3)
_R200 = _imagenet("bottleneck", 3, 24, 36, 3)

# Changes that make one family out of another.
_V1: Final[dict[str, Any]] = {"stride_in": "1x1"}
_PLAIN: Final[dict[str, Any]] = {"shortcut": "none"}
_WIDE: Final[dict[str, Any]] = {"group_width": 128}
_SE: Final[dict[str, Any]] = {"attention": "se"}
_BLUR: Final[dict[str, Any]] = {"blur_pool": True}
_C: Final[dict[str, Any]] = {"stem": "deep"}
_D: Final[dict[str, Any]] = {"stem": "deep", "pool_shortcut": True}
_T: Final[dict[str, Any]] = {"stem": "tiered", "pool_shortcut": True}
_PRE: Final[dict[str, Any]] = {"order": "pre"}
_ECA: Final[dict[str, Any]] = {"attention": "eca"}


def _next(groups: int, group_width: int) -> dict[str, Any]:
    return {"groups": groups, "group_width": group_width}


_IMAGENET: Final[dict[str, AnySpec]] = {
    "resnet18": _R18,
    "resnet34": _R34,
    "resnet26": _R26,
    "resnet50": _R50,
    "resnet101": _R101,
    "resnet152": _R152,
    "resnet200": _R200,
    "resnet50_v1": replace(_R50, **_V1),
    "resnet101_v1": replace(_R101, **_V1),
    "resnet152_v1": replace(_R152, **_V1),
    "plain18": replace(_R18, **_PLAIN),
    "plain34": replace(_R34, **_PLAIN),
    "plain50": replace(_R50, **_PLAIN),
    "plain101": replace(_R101, **_PLAIN),
    "plain152": replace(_R152, **_PLAIN),
    "resnetv2_50": replace(_R50, **_PRE),
    "resnetv2_101": replace(_R101, **_PRE),
    "resnetv2_152": replace(_R152, **_PRE),
    "wide_resnet50_2": replace(_R50, **_WIDE),
    "wide_resnet101_2": replace(_R101, **_WIDE),
    "resnext50_32x4d": replace(_R50, **_next(32, 4)),
    "resnext101_32x4d": replace(_R101, **_next(32, 4)),
    "resnext101_32x8d": replace(_R101, **_next(32, 8)),
    "resnext101_64x4d": replace(_R101, **_next(64, 4)),
    "seresnet18": replace(_R18, **_SE),
    "seresnet34": replace(_R34, **_SE),
    "seresnet50": replace(_R50, **_SE),
    "seresnet101": replace(_R101, **_SE),
    "seresnet152": replace(_R152, **_SE),
    "seresnext50_32x4d": replace(_R50, **_SE, **_next(32, 4)),
    "seresnext101_32x4d": replace(_R101, **_SE, **_next(32, 4)),
    "resnet50c": replace(_R50, **_C),
    "resnet101c": replace(_R101, **_C),
    "resnet18d": replace(_R18, **_D),
    "resnet26d": replace(_R26, **_D),
    "resnet34d": replace(_R34, **_D),
    "resnet50d": replace(_R50, **_D),
    "resnet101d": replace(_R101, **_D),
    "resnet152d": replace(_R152, **_D),
    "resnet200d": replace(_R200, **_D),
    "resnet26t": replace(_R26, **_T),
    "resnext50d_32x4d": replace(_R50, **_D, **_next(32, 4)),
    "ecaresnet26t": replace(_R26, **_T, **_ECA),
    "ecaresnet50d": replace(_R50, **_D, **_ECA),
    "ecaresnet101d": replace(_R101, **_D, **_ECA),
    "resnetblur18": replace(_R18, **_BLUR),
    "resnetblur50": replace(_R50, **_BLUR),
    "resnetblur50d": replace(_R50, **_D, **_BLUR),
    "densenet121": DenseNetSpec((6, 12, 24, 16), 32, "imagenet", 64, 224),
    "densenet161": DenseNetSpec((6, 12, 36, 24), 48, "imagenet", 96, 224),
    "densenet169": DenseNetSpec((6, 12, 32, 32), 32, "imagenet", 64, 224),
    "densenet201": DenseNetSpec((6, 12, 48, 32), 32, "imagenet", 64, 224),
}

_CIFAR: Final[dict[str, AnySpec]] = {
    **{f"cifar_resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110, 1202)},
    **{f"cifar_resnet{depth}": _cifar_bottleneck(depth) for depth in (164, 1001)},
    **{f"cifar_plain{depth}": _cifar(depth, "none") for depth in (20, 32, 44, 56, 110, 1202)},
    **{f"cifar_plain{depth}": _cifar_bottleneck(depth, "none") for depth in (164, 1001)},
    **{f"cifar_preresnet{depth}": _cifar(depth, "A", "pre") for depth in (20, 32, 44, 56, 110, 1202)},
    **{f"cifar_preresnet{depth}": _cifar_bottleneck(depth, "B", "pre") for depth in (164, 1001)},
    **{f"cifar_resnet{depth}_b": _cifar(depth, "B") for depth in (20, 32, 44, 56, 110)},
    **{f"cifar_resnet{depth}_c": _cifar(depth, "C") for depth in (20, 32, 44, 56, 110)},
    "cifar_wrn16_8": replace(_cifar(14, "B", "pre"), width=128),
    "cifar_wrn28_10": replace(_cifar(26, "B", "pre"), width=160),
    "cifar_wrn40_4": replace(_cifar(38, "B", "pre"), width=64),
    "cifar_densenet_bc100_12": DenseNetSpec((16, 16, 16), 12, "cifar", 24, 32),
    "cifar_densenet_bc190_40": DenseNetSpec((31, 31, 31), 40, "cifar", 80, 32),
    "cifar_highway11": HighwaySpec((3, 3, 3), 16, 32),
    "cifar_highway19": HighwaySpec((6, 6, 5), 16, 32),
    "cifar_highway32": HighwaySpec((10, 10, 10), 16, 32),
    # The default model: wide and shallow learns more in an hour of two cores than narrow and deep.
    "cifar_resnet16_wide2": Spec("basic", (2, 2, 3), "cifar", "B", stem_width=16, width=32, image_size=32),
}

SPECS: Mapping[str, AnySpec] = MappingProxyType({**_IMAGENET, **_CIFAR})


def get_spec(name: str) -> AnySpec:
    """The spec called ``name``, or the one in the file ``name`` where that ends in ``.json``."""
    if name.endswith(".json"):
        return read_spec(Path(name))
    if name not in SPECS:
        raise ExportError(f"unknown architecture {name!r}; known: {', '.join(SPECS)}")
    return SPECS[name]
