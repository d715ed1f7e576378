"""JPEGs to measure on: photos as they are, turned by EXIF, and enlarged."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def photos(source: Path) -> list[bytes]:
    """The JPEGs of a zip file or folder."""
    if source.is_dir():
        found = [path.read_bytes() for path in sorted(source.iterdir()) if path.is_file()]
    else:
        with zipfile.ZipFile(source) as archive:
            found = [archive.read(name) for name in archive.namelist()]
    return [data for data in found if data.startswith(b"\xff\xd8\xff")]


def large_jpeg(photo: bytes, size: tuple[int, int] = (4000, 3000)) -> bytes:
    """``photo`` enlarged, with noise in the place of the detail that a camera would see."""
    with Image.open(io.BytesIO(photo)) as image:
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    noise = np.random.default_rng(0).normal(0, 4, (*pixels.shape[:2], 1)).astype(np.float32)
    encoded = io.BytesIO()
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def on_its_side(photo: bytes) -> bytes:
    """``photo`` with the EXIF orientation of a telephone held upright; the pixels stay."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes()
    return photo[:2] + b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data + photo[2:]
