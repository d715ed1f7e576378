"""Other libraries that decode and resize, each where it is installed, behind one shape: bytes to a Pillow image."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from model_store.manifest import Preprocessing
from model_store.transforms import crop_box, to_rgb

os.environ["VIPS_CONCURRENCY"] = "1"  # read when libvips is loaded
PACKAGES = ("simplejpeg", "opencv-python-headless", "pyvips", "pyvips-binary", "cykooz-resizer")


def installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def other_decoders() -> dict[str, Callable[[bytes], Image.Image]]:
    """Bytes to an RGB image by each library that is here; Pillow reads the header and EXIF for all of them."""

    def header(data: bytes) -> None:
        Image.open(io.BytesIO(data), formats=("JPEG", "MPO")).getexif()

    decoders: dict[str, Callable[[bytes], Image.Image]] = {
        "Pillow": lambda data: to_rgb(Image.open(io.BytesIO(data), formats=("JPEG", "MPO")))
    }
    if simplejpeg := installed("simplejpeg"):

        def by_simplejpeg(data: bytes) -> Image.Image:
            header(data)
            return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB"))

        decoders["simplejpeg"] = by_simplejpeg
    if cv2 := installed("cv2"):
        cv2.setNumThreads(1)

        def by_opencv(data: bytes) -> Image.Image:
            header(data)
            flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
            return Image.fromarray(cv2.imdecode(np.frombuffer(data, np.uint8), flags))

        decoders["OpenCV"] = by_opencv
    if pyvips := installed("pyvips"):
        pyvips.cache_set_max(0)

        def by_vips(data: bytes) -> Image.Image:
            header(data)
            return Image.fromarray(pyvips.Image.jpegload_buffer(data, access="sequential").numpy())

        decoders["libvips"] = by_vips
    return decoders


def cykooz_resize(spec: Preprocessing) -> Callable[[Image.Image], Image.Image] | None:
    """The crop's resize by fast_image_resize, if it is here."""
    if (cykooz := installed("cykooz_resizer")) is None:
        return None
    resizer, small = cykooz.Resizer(), Image.new("RGB", (spec.width, spec.height))
    how = cykooz.ResizeAlg.convolution(cykooz.FilterType.bilinear)

    def resize(image: Image.Image) -> Image.Image:
        left, upper, right, lower = crop_box(*image.size, spec)
        box = cykooz.CropBox(left, upper, right - left, lower - upper)
        resizer.resize_pil(image, small, cykooz.ResizeOptions(how, crop_box=box))
        return small

    return resize
