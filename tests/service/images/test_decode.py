from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from typing import get_args

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.errors import BadImage, ImageError, ImageTooLarge, NotAnImage
from service.images.decode import Decoder, decoding_errors, sniff
from service.settings import ImageFormat
from tests.model_store.pictures import png_without_pixels
from tests.service.conftest import a_picture, encode
from tests.service.images.conftest import ALL_FORMATS, PILLOW_MAY_WARN, a_decoder, flat, pixel

pytestmark = PILLOW_MAY_WARN


# Formats


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_each_format_is_recognised_and_decoded(kind: ImageFormat, decoder: Decoder) -> None:
    data = encode(flat("RGB", (200, 200, 200), (9, 5)), kind)
    assert sniff(data) == kind
    image = decoder.decode(data)
    assert image.size == (9, 5)
    assert np.abs(np.asarray(image).astype(int) - 200).max() <= 2


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_a_format_that_is_switched_off_is_not_decoded(kind: ImageFormat) -> None:
    others = tuple(other for other in ALL_FORMATS if other != kind)
    with pytest.raises(NotAnImage, match=f"{kind} images are not taken; taken are .*{others[0]}"):
        a_decoder(others).decode(encode(a_picture(), kind))


@pytest.mark.parametrize(
    "data", [b"", b"B", b"hello", b"%PDF-1.7", b"<svg/>", b"\x00" * 100, b"RIFF\x00\x00\x00\x00WAVE"]
)
def test_what_is_no_image_is_not_an_image(data: bytes, decoder: Decoder) -> None:
    assert sniff(data) is None
    with pytest.raises(NotAnImage):
        decoder.decode(data)


@pytest.mark.parametrize(
    "magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBP", b"GIF89a", b"II*\x00", b"BM"]
)
def test_a_signature_alone_is_a_bad_image(magic: bytes, decoder: Decoder) -> None:
    with pytest.raises(BadImage):
        decoder.decode(magic)


def test_only_the_plugin_of_the_recognised_format_sees_the_bytes(decoder: Decoder) -> None:
    """A PNG behind a BMP's first bytes is not handed to the PNG plugin."""
    with pytest.raises(BadImage):
        decoder.decode(b"BM" + encode(a_picture()))


def test_formats_of_pillow_that_are_not_ours_are_refused(decoder: Decoder) -> None:
    for kind in ("PPM", "ICO", "TGA", "PCX"):
        with pytest.raises(ImageError):
            decoder.decode(encode(flat("RGB", (1, 2, 3), (16, 16)), kind))


def test_first_frame_of_a_gif_and_first_page_of_a_tiff() -> None:
    frames = [flat("RGB", colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        data = encode(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert pixel(data) == (255, 0, 0), kind


def test_a_truncated_image_says_so(decoder: Decoder) -> None:
    data = encode(a_picture(size=(64, 64)), "JPEG")
    with pytest.raises(BadImage, match="truncated"):
        decoder.decode(data[: len(data) // 2])


# Limits


def test_the_pixel_limit_is_inclusive() -> None:
    decoder = a_decoder(max_pixels=1024)
    assert decoder.decode(encode(a_picture(size=(32, 32)))).size == (32, 32)
    with pytest.raises(ImageTooLarge, match="1024"):
        decoder.decode(encode(a_picture(size=(41, 25))))


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_every_format_obeys_the_pixel_limit(kind: ImageFormat) -> None:
    data = encode(flat("RGB", 0, (100, 100)), kind)
    with pytest.raises(ImageTooLarge):
        a_decoder(max_pixels=9_999).decode(data)
    with pytest.raises(ImageTooLarge):
        a_decoder(max_pixels=2_000).decode(data)


def test_a_huge_header_is_refused_without_its_pixels() -> None:
    with pytest.raises(ImageTooLarge):
        a_decoder().decode(png_without_pixels(60_000))


def test_a_text_bomb_is_a_bad_image_or_ignored(decoder: Decoder) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 80 * 2**20, zip=True)
    data = encode(a_picture(), pnginfo=info)
    with contextlib.suppress(ImageError):
        assert decoder.decode(data).size == (8, 8)


# Errors at the edge


@pytest.mark.parametrize(
    "error",
    [
        OSError("x"),
        ValueError("x"),
        SyntaxError("x"),
        struct.error("x"),
        zlib.error("x"),
        MemoryError(),
        RecursionError("x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
        Image.UnidentifiedImageError("cannot identify image file <_io.BytesIO object at 0x7f0>"),
    ],
)
def test_pillows_errors_become_ours(error: Exception) -> None:
    with pytest.raises(BadImage, match="the png image cannot be decoded") as caught, decoding_errors("png"):
        raise error
    assert "BytesIO" not in caught.value.message
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [Image.DecompressionBombError("x"), Image.DecompressionBombWarning("x")])
def test_pillows_bomb_alarms_become_image_too_large(error: Exception) -> None:
    with pytest.raises(ImageTooLarge), decoding_errors("png"):
        raise error


def test_our_errors_pass_unchanged() -> None:
    with pytest.raises(ImageTooLarge, match="mine"), decoding_errors("png"):
        raise ImageTooLarge("mine")


def test_the_decoded_image_outlives_its_bytes(decoder: Decoder) -> None:
    data = io.BytesIO(encode(a_picture(size=(20, 20))))
    image = decoder.decode(data.getvalue())
    data.close()
    assert image.resize((3, 3)).size == (3, 3)


_WITHOUT_DESCRIPTORS = """
import resource, sys
from service.images.decode import Decoder
from service.settings import DecodeSettings

decoder = Decoder(DecodeSettings(image_formats=sys.argv[1].split(",")))
data = sys.stdin.buffer.read()
resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(decoder.decode(data).size)
"""


@pytest.mark.parametrize("kind", get_args(ImageFormat))
def test_the_first_image_needs_no_file(kind: str) -> None:
    """Pillow would load its plugins then, and where no file can be opened take the format for unknown ever after."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_DESCRIPTORS, kind], input=encode(a_picture(), kind.upper()),
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-500:]
    assert done.stdout.strip() == b"(8, 8)"
