"""What costly images of all formats are made of."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

MOST_BYTES: Final = 10_400_000
"""A little less than a request may have by default, so that others fit beside it."""
SIDE: Final = 4096
"""Pixels on a side of an image at the default bound."""

MADE: Final[dict[str, Callable[[], bytes]]] = {}
"""What makes each, by its name."""


def made(make: Callable[[], bytes]) -> Callable[[], bytes]:
    MADE[make.__name__] = make
    return make


@functools.cache
def noise(side: int = SIDE, channels: int = 3, levels: int = 256) -> npt.NDArray[np.uint8]:
    shape = (side, side) if channels == 1 else (side, side, channels)
    return np.random.default_rng(0).integers(0, levels, shape, dtype=np.uint8)


def flat(mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    return Image.new(mode, size)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def filling(
    image: Image.Image, kind: str, qualities: tuple[int, ...] = (95, 75, 50, 30, 15, 5, 1), **options: Any
) -> bytes:
    """``image`` in the best quality whose file is not too large."""
    for quality in qualities:
        if len(data := saved(image, kind, quality=quality, **options)) <= MOST_BYTES:
            return data
    raise ValueError(f"no {kind} is small enough")


def tiny(kind: str) -> bytes:
    return saved(Image.fromarray(noise(64)), kind)


def exif_bomb(size: int, tags: int) -> bytes:
    """An EXIF directory whose every tag is nearly all of ``size`` bytes, the same ones."""
    entries = b"".join(struct.pack("<HHII", 0x0200 + n, 7, size - 8, 8) for n in range(tags))
    return (b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", tags) + entries).ljust(size, b"\x00")
