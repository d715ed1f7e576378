"""RGB image and preprocessing to uint8 tensor: the same pixels in serving, calibration and parity.

Normalisation is not here: it is in the ONNX graph.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.manifest import Interpolation, Preprocessing

Box = tuple[float, float, float, float]

EXIF_ORIENTATION: Final = 0x0112


class _Turn(NamedTuple):
    """How an image is turned upright, and where its upright axes lie in it: swapped, and counted from the far side."""

    how: Image.Transpose
    swapped: bool
    from_right: bool
    from_below: bool


# For each EXIF orientation (Exif 2.32, section 4.6.4).
_TURNS: Final[dict[object, _Turn]] = {
    2: _Turn(Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: _Turn(Image.Transpose.ROTATE_180, False, True, True),
    4: _Turn(Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: _Turn(Image.Transpose.TRANSPOSE, True, False, False),
    6: _Turn(Image.Transpose.ROTATE_270, True, False, True),
    7: _Turn(Image.Transpose.TRANSVERSE, True, True, True),
    8: _Turn(Image.Transpose.ROTATE_90, True, True, False),
}
_RESAMPLING: Final[dict[Interpolation, Image.Resampling]] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def scale_jpeg(image: Image.Image, spec: Preprocessing) -> int:
    """Have an opened JPEG decoded at 1/2, 1/4 or 1/8 of its size where ``spec`` allows it; gives 2, 4, 8 or 1.

    To be called before anything is decoded. Other formats, and JPEGs too small for it, stay whole.
    """
    if spec.jpeg_scaling is None:
        return 1
    # The same for both sides, as the image may lie on its side.
    side = math.ceil(spec.jpeg_scaling.margin * max(_resized(1, 1, spec)))
    width = image.width
    drafted = image.draft(None, (side, side))
    return round(width / drafted[1][2]) if drafted else 1


class View(NamedTuple):
    """What the network sees: ``box`` of an RGB ``image``, turned upright once it is small.

    ``whole`` is the width and height of the upright image it is a part of, as it was before any scaling.
    """

    image: Image.Image
    box: Box
    turn: _Turn | None
    whole: tuple[int, int]


def load_view(image: Image.Image, spec: Preprocessing) -> View:
    """Decode an opened ``image``, smaller where it is a large JPEG and ``spec`` allows it."""
    whole = image.size
    scale = scale_jpeg(image, spec)
    image.load()
    turn = _TURNS.get(_orientation(image))
    # Loading may change the size of other formats: TIFF is turned by Pillow itself.
    width, height = stored = image.size if scale == 1 else whole
    upright = (height, width) if turn is not None and turn.swapped else stored
    return View(_rgb(image), _stored_box(stored, scale, turn, spec), turn, upright)


def _stored_box(whole: tuple[int, int], scale: int, turn: _Turn | None, spec: Preprocessing) -> Box:
    """``crop_box`` of the upright image in the pixels of the stored one, which may be ``scale`` times smaller."""
    width, height = whole
    if turn is not None and turn.swapped:
        upper, left, lower, right = crop_box(height, width, spec)
    else:
        left, upper, right, lower = crop_box(width, height, spec)
    if turn is not None and turn.from_right:
        left, right = width - right, width - left
    if turn is not None and turn.from_below:
        upper, lower = height - lower, height - upper
    return left / scale, upper / scale, right / scale, lower / scale


def to_rgb(image: Image.Image) -> Image.Image:
    """``image`` upright (EXIF orientation) and as 8-bit RGB, whatever its mode.

    Transparent pixels are laid on white. 16-bit greys keep their upper 8 bits.
    """
    image.load()
    turn = _TURNS.get(_orientation(image))
    return _rgb(image if turn is None else image.transpose(turn.how))


def _rgb(image: Image.Image) -> Image.Image:
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


def crop_box(width: int, height: int, spec: Preprocessing) -> Box:
    """The part of a ``width`` x ``height`` image that the network sees, in source pixels.

    The same as resizing and cutting the centre (torchvision's ``Resize`` and
    ``CenterCrop``, roundings included), but in one step, so that only what is
    kept is resampled. A crop larger than the resized image is clamped to it.
    """
    resized_width, resized_height = _resized(width, height, spec)
    left, right = _centre(resized_width, spec.width)
    upper, lower = _centre(resized_height, spec.height)
    # Multiplied first, so that the whole image is just that, not a rounding error less.
    return (
        left * width / resized_width,
        upper * height / resized_height,
        min(right * width / resized_width, float(width)),
        min(lower * height / resized_height, float(height)),
    )


def _resized(width: int, height: int, spec: Preprocessing) -> tuple[int, int]:
    """Width and height after the resize of a ``width`` x ``height`` image, before the centre is cut out."""
    # The resized image has the proportions of the source or, squashed, of the crop.
    frame_width, frame_height = (spec.width, spec.height) if spec.resize_mode == "squash" else (width, height)
    shorter = min(frame_width, frame_height)
    return spec.resize * frame_width // shorter, spec.resize * frame_height // shorter


def _centre(length: int, wanted: int) -> tuple[int, int]:
    """Start and end of the middle ``wanted`` of ``length`` pixels."""
    start = max(0, round((length - wanted) / 2))
    return start, min(start + wanted, length)


def view_of(image: Image.Image, spec: Preprocessing) -> View:
    """What the network sees of an upright RGB ``image``."""
    return View(image, crop_box(*image.size, spec), None, image.size)


def to_tensor(
    image: Image.Image, spec: Preprocessing, out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """An upright RGB ``image`` as the network takes it: uint8 ``[height, width, 3]``; ``out`` as in ``view_tensor``."""
    return view_tensor(view_of(image, spec), spec, out)


def view_tensor(view: View, spec: Preprocessing, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
    """A ``view`` as the network takes it: uint8 ``[height, width, 3]``, in ``out`` where it is given.

    ``out`` may be a row of a batch. It is written last, so where this raises it is as it was. Turning after the resize
    takes a fraction of the time and gives the pixels of turning first but for their rounding (docs/decoding.md).
    """
    image, box, turn, _ = view
    if image.mode != "RGB":
        raise ValueError(f"a tensor is made of RGB images, not {image.mode}")
    if out is not None and (out.shape != (spec.height, spec.width, 3) or out.dtype != np.uint8):
        raise ValueError(f"out is {out.dtype} {out.shape}, not uint8 {(spec.height, spec.width, 3)}")
    size = (spec.height, spec.width) if turn is not None and turn.swapped else (spec.width, spec.height)
    if image.size != size or box != (0.0, 0.0, *map(float, size)):
        image = image.resize(size, _RESAMPLING[spec.interpolation], box=box)
    if turn is not None:
        image = image.transpose(turn.how)
    pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(spec.height, spec.width, 3)
    if out is None:
        return pixels
    np.copyto(out, pixels)
    return out
