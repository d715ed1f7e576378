"""Made-up images, and the preprocessing that they get."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from model_store.manifest import JpegScaling, Preprocessing
from model_store.reports import Gate


def a_spec(resize: int, height: int, width: int, interpolation: str = "bilinear") -> Preprocessing:
    return Preprocessing(
        height=height, width=width, resize=resize, interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1)
    )


def squashed(resize: int, height: int, width: int) -> Preprocessing:
    return a_spec(resize, height, width).model_copy(update={"resize_mode": "squash"})


def scaling(spec: Preprocessing, margin: float) -> Preprocessing:
    gate = Gate(
        rule="agreement",
        passed=True,
        images=1,
        image_source="made up",
        top1_agreement=1.0,
        max_accuracy_drop=0.0,
        min_agreement=0.995,
        max_absolute_error=0.0,
    )
    return spec.model_copy(update={"jpeg_scaling": JpegScaling(margin=margin, gate=gate)})


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> Image.Image:
    """``image`` as it is when opened again, not yet decoded."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_without_pixels(side: int) -> bytes:
    """A PNG that says it has ``side`` by ``side`` of them."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND")
