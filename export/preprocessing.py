"""How an image becomes a network's input: what the command says, what the origin keeps, what is usual.

Everyone speaks in ``InputOptions`` and leaves out what they do not know. The
command goes before the origin, the origin before the architecture's habit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from export.errors import ExportError
from model_store.manifest import ChannelOrder, Interpolation, Preprocessing, ResizeMode, Triple

# torchvision's, of 0..1 values; the CIFAR checkpoints in circulation are trained with them too.
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

T = TypeVar("T")


@dataclass(frozen=True)
class InputOptions:
    """What one side says of the preprocessing; None is for the next to say.

    size          -- height and width of the input, pixels.
    resize        -- shorter side after the resize and before the crop, pixels.
    crop          -- the same as a share: ``size / resize``, timm's ``crop_pct``.
    resize_mode   -- ``shorter`` keeps proportions, ``squash`` does not; see ``Preprocessing``.
    channel_order -- what the network takes; ``mean`` and ``std`` are in this order.
    mean, std     -- of values in ``value_range``.
    value_range   -- what black and white become before ``mean`` and ``std`` apply. With a range and
                     without them, nothing more is done to the values.
    """

    size: int | None = None
    resize: int | None = None
    interpolation: Interpolation | None = None
    mean: Triple | None = None
    std: Triple | None = None
    crop: float | None = None
    resize_mode: ResizeMode | None = None
    channel_order: ChannelOrder | None = None
    value_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, spec: Preprocessing) -> InputOptions:
        """``spec``, of a square input, as somebody says it."""
        return cls(
            size=spec.height,
            resize=spec.resize,
            interpolation=spec.interpolation,
            mean=spec.mean,
            std=spec.std,
            resize_mode=spec.resize_mode,
            channel_order=spec.channel_order,
        )

    def normalisation(self) -> tuple[Triple | None, Triple | None]:
        """``mean`` and ``std`` of values from 0 to 1; ``ExportError`` for a range that is none.

        (lo + (hi - lo) x - mean) / std = (x - (mean - lo) / (hi - lo)) / (std / (hi - lo))
        """
        if self.value_range is None:
            return self.mean, self.std
        low, high = self.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ExportError(f"the value range {low:g} {high:g} is none: the first is below the second")
        mean, std = self.mean or (0.0, 0.0, 0.0), self.std or (1.0, 1.0, 1.0)
        width = high - low
        return _each(mean, -low, width), _each(std, 0.0, width)


def _each(values: Triple, add: float, divide: float) -> Triple:
    red, green, blue = ((value + add) / divide for value in values)
    return red, green, blue


def usual_input(image_size: int, whole: bool) -> InputOptions:
    """What is usual for a network of ``image_size``: ``whole`` images, or their centre as torchvision cuts it."""
    return InputOptions(
        size=image_size,
        resize=image_size if whole else image_size * 256 // 224,
        interpolation="bilinear",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        resize_mode="shorter",
        channel_order="rgb",
    )


def decide(command: InputOptions, origin: InputOptions, usual: InputOptions) -> Preprocessing:
    """The first of the three to say something of a setting has it; ``ExportError`` where they do not make sense."""
    sides = (command, origin, usual)
    size = _first([side.size for side in sides])
    resize = _resize(sides, size)
    if resize < size:
        raise ExportError(f"--resize {resize} is less than --size {size}: there would be nothing to crop")
    order: ChannelOrder = _first([side.channel_order for side in sides])
    # The command speaks of the order that was decided; the others of their own.
    normalisations = [side.normalisation() if side is command else _in_order(side, order) for side in sides]
    try:
        return Preprocessing(
            height=size,
            width=size,
            resize=resize,
            resize_mode=_first([side.resize_mode for side in sides]),
            interpolation=_first([side.interpolation for side in sides]),
            channel_order=order,
            mean=_first([mean for mean, _ in normalisations]),
            std=_first([std for _, std in normalisations]),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ExportError(f"--{first['loc'][0]}: {first['msg']}") from error


def _in_order(side: InputOptions, order: ChannelOrder) -> tuple[Triple | None, Triple | None]:
    mean, std = side.normalisation()
    if (side.channel_order or "rgb") == order:
        return mean, std
    return mean and _reversed(mean), std and _reversed(std)


def _reversed(values: Triple) -> Triple:
    return values[2], values[1], values[0]


def _first(values: Sequence[T | None]) -> T:
    return next(value for value in values if value is not None)


def _resize(sides: tuple[InputOptions, ...], size: int) -> int:
    """The resize of the first side that says how much is cut off, in proportion where another side gave the size."""
    for number, side in enumerate(sides):
        if side.crop is not None:
            if not 0 < side.crop <= 1:
                raise ExportError(f"the crop {side.crop:g} is no share of the image: above 0, 1 at most")
            return math.floor(size / side.crop)
        if side.resize is not None:
            return side.resize if number == 0 or side.size is None else side.resize * size // side.size
        if side.resize_mode == "squash":
            return size
    return size


def in_words(spec: Preprocessing) -> str:
    """``spec`` for a person, on one line."""
    if spec.resize_mode == "squash":
        cut = "the whole image" if spec.resize == min(spec.height, spec.width) else f"the centre of {spec.resize}"
        frame = f"{cut}, proportions not kept"
    else:
        frame = f"the centre, shorter side {spec.resize}"
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std))
    order = f"{spec.channel_order.upper()}, " if spec.channel_order != "rgb" else ""
    return f"{spec.width}x{spec.height}, {frame}, {spec.interpolation}, {order}mean {mean}, std {std}"


def normalised(pixels: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """What a network takes: uint8 RGB ``[n, height, width, 3]`` as float ``[n, 3, height, width]``.

    Written apart from the graph's, so that an error in either shows.
    """
    ordered = pixels[..., ::-1] if preprocessing.channel_order == "bgr" else pixels
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    values = (ordered.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
