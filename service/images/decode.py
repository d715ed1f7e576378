"""Encoded bytes to an RGB image, within limits. What comes in is not trusted.

The format is recognised by content; only that format's Pillow plugin sees the
bytes. Pillow's errors are translated here and travel no further.
"""

from __future__ import annotations

import importlib
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from model_store.manifest import Preprocessing
from model_store.transforms import load_view, to_rgb, view_of, view_tensor
from service.errors import BadImage, ImageTooLarge, NotAnImage
from service.images.image_costs import is_cheap, is_plain
from service.settings import DecodeSettings, ImageFormat

# Pillow only warns below twice its limit; here its limit is a limit.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# Odd metadata is the client's affair; it must not fill the operator's log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# Most photos are read, and 224x224 pixels written, in one piece: fewer copies, and the GIL changes hands less often.
ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 2**18)

# The marker that begins a scan; coded data never holds it (ITU-T T.81, B.1.1.5), a thumbnail has one of its own.
_JPEG_SCAN: Final = int.from_bytes(b"\xff\xda", "little")

_PILLOW_FORMATS: Final[dict[ImageFormat, tuple[str, ...]]] = {
    "jpeg": ("JPEG", "MPO"),
    "png": ("PNG",),
    "webp": ("WEBP",),
    "bmp": ("BMP",),
    "gif": ("GIF",),
    "tiff": ("TIFF",),
}

_PILLOW_MODULES: Final[dict[str, str]] = {
    "JPEG": "JpegImagePlugin",
    "MPO": "MpoImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "TIFF": "TiffImagePlugin",
}


def sniff(data: bytes) -> ImageFormat | None:
    """The image format that ``data`` begins like, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return "tiff"
    if data.startswith(b"BM"):
        return "bmp"
    return None


def jpeg_scans(data: bytes) -> int:
    """How many scans a JPEG has at most, without decoding it; four times as fast as ``bytes.count``."""
    pairs = (np.frombuffer(data, "<u2", (len(data) - start) // 2, start) for start in (0, 1) if len(data) > start + 1)
    return sum(int(np.count_nonzero(pair == _JPEG_SCAN)) for pair in pairs)


@contextmanager
def decoding_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on broken ``name`` data into ``BadImage`` or ``ImageTooLarge``."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(Image.MAX_IMAGE_PIXELS) from error
    # What Pillow's plugins are known to raise on malformed files; a programming error is none of them.
    except (
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
        EOFError,
        IndexError,
        KeyError,
        OverflowError,
        AttributeError,
        AssertionError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
        ZeroDivisionError,
        struct.error,
        zlib.error,
    ) as error:
        reason = str(error) if isinstance(error, OSError) and "truncated" in str(error) else "broken or not supported"
        raise BadImage(f"the {name} image cannot be decoded: {reason}") from error


def _too_many_pixels(most: int | None) -> ImageTooLarge:
    return ImageTooLarge(f"the image has too many pixels; at most {most} are taken: send it smaller")


class Decoded(NamedTuple):
    """An image as the network takes it, uint8 ``[height, width, 3]``, and the size of the upright image it is of.

    transform_s -- seconds that it took to make it of RGB pixels.
    """

    pixels: npt.NDArray[np.uint8]
    whole: tuple[int, int]
    transform_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ready:
    """An image as the network takes it: decoded ahead, or sent so."""

    decoded: Decoded
    decode_s: float = 0.0


class Costly(Exception):
    """The image may take more than a thread should be given, which nobody can end."""


class Decoder:
    """Decodes images of the configured formats and sizes. Safe in many threads at once.

    One that takes ``cheap_only`` images raises ``Costly`` for others, before it decodes a pixel.
    """

    def __init__(self, settings: DecodeSettings, *, cheap_only: bool = False) -> None:
        self._cheap_only = cheap_only
        self._formats = settings.image_formats
        self._max_pixels = settings.max_pixels
        self._max_jpeg_scans = settings.max_jpeg_scans
        # Pillow does so with the first image. Where no file can be opened just then, it never knows the format again.
        Image.preinit()
        for kind in settings.image_formats:
            for name in _PILLOW_FORMATS[kind]:
                importlib.import_module(f"PIL.{_PILLOW_MODULES[name]}")
        # Bounds the header's size and what a plugin finds inside the file (frames, tiles) after it.
        Image.MAX_IMAGE_PIXELS = settings.max_pixels

    def decode(self, data: bytes) -> Image.Image:
        """``data`` as an upright RGB image; an ``ImageError`` says what is wrong with it."""
        with self._opened(data) as image:
            return to_rgb(image)

    def tensor(
        self, data: bytes | npt.NDArray[np.uint8], spec: Preprocessing, out: npt.NDArray[np.uint8] | None = None
    ) -> Decoded:
        """``data`` as the network takes it, written to ``out`` where it is given.

        ``data`` is an encoded image, or the pixels of an upright RGB one: uint8 ``[height, width, 3]`` of any size.
        Errors are those of ``decode``; ``out`` is written only after the last thing that can fail.
        """
        if not isinstance(data, bytes):
            image = Image.fromarray(data)
            self._check_size(image)
            view = view_of(image, spec)
        else:
            with self._opened(data) as opened:
                view = load_view(opened, spec)
        loaded_s = perf_counter()
        pixels = view_tensor(view, spec, out)
        return Decoded(pixels, view.whole, perf_counter() - loaded_s)

    @contextmanager
    def _opened(self, data: bytes) -> Iterator[Image.Image]:
        """The image, not decoded yet; whatever Pillow raises on it inside is one of our errors."""
        kind = sniff(data)
        if kind is None:
            raise NotAnImage(f"the data is no image; taken are {self._taken}")
        if kind not in self._formats:
            raise NotAnImage(f"{kind} images are not taken; taken are {self._taken}")
        scans = jpeg_scans(data) if kind == "jpeg" else 0
        if scans > self._max_jpeg_scans:
            raise ImageTooLarge(
                f"the JPEG has too many scans; at most {self._max_jpeg_scans} are taken: save it as a baseline JPEG"
            )
        if self._cheap_only and not is_plain(kind, data):
            raise Costly
        with (
            decoding_errors(kind),
            Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS[kind]) as image,
        ):
            # Before any pixel is decoded. Pillow checks too, but as a warning, which other code may silence.
            self._check_size(image)
            if self._cheap_only and not is_cheap(kind, image.size, scans):
                raise Costly
            yield image

    def _check_size(self, image: Image.Image) -> None:
        if image.width * image.height > self._max_pixels:
            raise _too_many_pixels(self._max_pixels)

    @property
    def _taken(self) -> str:
        return ", ".join(self._formats)
