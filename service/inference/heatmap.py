"""Class activation maps, as numbers and as pictures: pure functions.

The map of a class says what each part of the image adds to its logit: its mean is the logit but for the class's bias
(Zhou et al., 2015, https://arxiv.org/abs/1512.04150). A picture of it shows its lowest value in the colour map's first
colour and its highest in the last, whatever they are, so colours of two maps do not compare. Between the centres of the
grid's cells it is interpolated linearly.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from model_store.transforms import Box
from service.inference.colormaps import ColorMap, table
from service.inference.postprocess import Floats

_LEVELS: Final = 255  # of a picture, one less than a palette has: the last is what the network did not see
_UNSEEN: Final = _LEVELS
# A fifth of the time of zlib's default for a sixth more bytes, over a photo of 12 megapixels.
_PNG_COMPRESSION: Final = 1


@dataclass(frozen=True, slots=True)
class Heatmap:
    """What each part of an image adds to the logit of one class.

    grid  -- float32 ``[height, width]``, over ``box``.
    box   -- the part of the upright image that the network saw, (left, upper, right, lower) in its pixels.
    size  -- the upright image's width and height, pixels.
    """

    label: str
    index: int
    logit: float
    grid: Floats
    box: Box
    size: tuple[int, int]

    @property
    def bias(self) -> float:
        """What the class has on any image: all of the logit that is not of the map."""
        return self.logit - float(self.grid.mean(dtype=np.float64))

    def as_json(self) -> dict[str, Any]:
        height, width = self.grid.shape
        return {
            "label": self.label,
            "index": self.index,
            "logit": self.logit,
            "bias": self.bias,
            "height": height,
            "width": width,
            "grid": self.grid,
            "box": self.box,
            "image": {"width": self.size[0], "height": self.size[1]},
        }


def draw(heatmap: Heatmap, colormap: ColorMap) -> Image.Image:
    """The map alone, of the image's size: a palette image, transparent where the network saw nothing."""
    grid = heatmap.grid.astype(np.float64)
    lowest, span = grid.min(), np.ptp(grid)
    levels = (grid - lowest) / span if span > 0 else np.zeros_like(grid)
    coarse = Image.fromarray(np.round(levels * (_LEVELS - 1)).astype(np.uint8))
    left, upper, right, lower = seen = _whole_pixels(heatmap)
    picture = Image.new("L", heatmap.size, _UNSEEN)
    picture.paste(coarse.resize((right - left, lower - upper), Image.Resampling.BILINEAR), seen)
    picture.putpalette(table(colormap, _LEVELS).tobytes() + bytes(3))
    picture.info["transparency"] = _UNSEEN
    return picture


def overlay(image: Image.Image, heatmap: Heatmap, colormap: ColorMap, opacity: float) -> Image.Image:
    """The map over the upright RGB ``image``, which shows through by 1 - ``opacity``; the rest of it stays as it is."""
    seen = _whole_pixels(heatmap)
    colours = draw(heatmap, colormap).crop(seen).convert("RGB")
    image.paste(Image.blend(image.crop(seen), colours, opacity), seen)
    return image


def png(picture: Image.Image) -> bytes:
    """``picture`` as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=_PNG_COMPRESSION)
    return file.getvalue()


def _whole_pixels(heatmap: Heatmap) -> tuple[int, int, int, int]:
    """The pixels of ``heatmap.box``: those whose larger part is in it, and one at least."""
    width, height = heatmap.size
    left, upper, right, lower = (round(edge) for edge in heatmap.box)
    left, upper = min(left, width - 1), min(upper, height - 1)
    return left, upper, max(right, left + 1), max(lower, upper + 1)
