"""RGB image and preprocessing to uint8 tensor: the same pixels in serving, calibration and parity.

Normalisation is not here: it is in the ONNX graph.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.manifest import Interpolation, Preprocessing

EXIF_ORIENTATION: Final = 0x0112
# How to turn an image of each EXIF orientation upright (Exif 2.32, section 4.6.4).
_TURNS: Final[dict[object, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RESAMPLING: Final[dict[Interpolation, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def to_rgb(image: Image.Image) -> Image.Image:
    """``image`` upright (EXIF orientation) and as 8-bit RGB, whatever its mode.

    Transparent pixels are laid on white. 16-bit greys keep their upper 8 bits.
    """
    image.load()
    if (turn := _TURNS.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_from_deep(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation; upright where the metadata is broken, for the pixels are not."""
    try:
        return image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 - broken EXIF makes Pillow's reader raise whatever it hits
        return None


def _grey_from_deep(image: Image.Image) -> Image.Image:
    """An 8-bit grey image from 16- or 32-bit integers (16 bits of range) or floats in 0..1."""
    pixels = np.asarray(image)
    if image.mode == "F":
        grey = (np.nan_to_num(pixels).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    else:
        grey = (pixels.clip(0, 65535) >> 8).astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[pixels == clear] = 255
    return Image.fromarray(grey)


def crop_box(width: int, height: int, spec: Preprocessing) -> tuple[float, float, float, float]:
    """The part of a ``width`` x ``height`` image that the network sees, in source pixels.

    The same as resizing and cutting the centre (torchvision's ``Resize`` and
    ``CenterCrop``, roundings included), but in one step, so that only what is
    kept is resampled. A crop larger than the resized image is clamped to it.
    """
    # The resized image has the proportions of the source or, squashed, of the crop.
    frame_width, frame_height = (spec.width, spec.height) if spec.resize_mode == "squash" else (width, height)
    shorter = min(frame_width, frame_height)
    resized_width, resized_height = spec.resize * frame_width // shorter, spec.resize * frame_height // shorter
    left, right = _centre(resized_width, spec.width)
    upper, lower = _centre(resized_height, spec.height)
    # Multiplied first, so that the whole image is just that, not a rounding error less.
    return (
        left * width / resized_width,
        upper * height / resized_height,
        min(right * width / resized_width, float(width)),
        min(lower * height / resized_height, float(height)),
    )


def _centre(length: int, wanted: int) -> tuple[int, int]:
    """Start and end of the middle ``wanted`` of ``length`` pixels."""
    start = max(0, round((length - wanted) / 2))
    return start, min(start + wanted, length)


def to_tensor(
    image: Image.Image, spec: Preprocessing, out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """An RGB ``image`` as the network takes it: uint8 ``[height, width, 3]``, in ``out`` where it is given.

    ``out`` may be a row of a batch. It is written last, so where this raises it is as it was.
    """
    if image.mode != "RGB":
        raise ValueError(f"to_tensor takes RGB images, not {image.mode}")
    if out is not None and (out.shape != (spec.height, spec.width, 3) or out.dtype != np.uint8):
        raise ValueError(f"out is {out.dtype} {out.shape}, not uint8 {(spec.height, spec.width, 3)}")
    box = crop_box(*image.size, spec)
    size = (spec.width, spec.height)
    if image.size != size or box != (0.0, 0.0, *map(float, size)):
        image = image.resize(size, _RESAMPLING[spec.interpolation], box=box)
    pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(spec.height, spec.width, 3)
    if out is None:
        return pixels
    np.copyto(out, pixels)
    return out
