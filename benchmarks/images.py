"""Encoded images to send: photos where there are some, else made ones."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from export.images.files import read_images

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos.zip"


@dataclass(frozen=True)
class Images:
    """Encoded images, and in words where they are from."""

    bodies: list[bytes]
    origin: str


def load_images(source: Path | None = None) -> Images:
    """The images of ``source``, a folder or zip; the photos beside the repository; or made ones."""
    source = source or (PHOTOS if PHOTOS.exists() else None)
    if source is None:
        return made_images(500, 375)
    bodies = [file.data for file in read_images(source)]
    return Images(bodies, f"{len(bodies)} images of {source.name}")


def made_images(width: int, height: int, count: int = 32) -> Images:
    """Smooth random JPEGs: about as many bytes a pixel as a photo's."""
    rng = np.random.default_rng(0)
    bodies = []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8))
        image = small.resize((width, height), Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=90)
        bodies.append(encoded.getvalue())
    return Images(bodies, f"{count} made images ({width}x{height} JPEG)")


def rgb_only(images: Images) -> Images:
    """Those of ``images`` that are RGB: TorchServe's own handler fails a whole batch over a grey one."""
    bodies = []
    for body in images.bodies:
        with Image.open(io.BytesIO(body)) as image:
            if image.mode == "RGB":
                bodies.append(body)
    return Images(bodies, f"{images.origin}, the {len(bodies)} that are RGB")
