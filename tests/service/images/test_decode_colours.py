"""Every mode of an image becomes RGB."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import encode
from tests.service.images.conftest import PILLOW_MAY_WARN, decoded, flat, pixel

pytestmark = PILLOW_MAY_WARN


@pytest.mark.parametrize(
    ("image", "kind", "wanted"),
    [
        (flat("L", 77), "PNG", (77, 77, 77)),
        (flat("1", 1), "PNG", (255, 255, 255)),
        (flat("1", 0), "TIFF", (0, 0, 0)),
        (flat("LA", (100, 255)), "PNG", (100, 100, 100)),
        (flat("LA", (100, 0)), "PNG", (255, 255, 255)),
        (flat("LA", (0, 51)), "PNG", (204, 204, 204)),
        (flat("RGBA", (10, 20, 30, 255)), "PNG", (10, 20, 30)),
        (flat("RGBA", (10, 20, 30, 0)), "PNG", (255, 255, 255)),
        (flat("RGBA", (0, 0, 255, 102)), "PNG", (153, 153, 255)),
        (flat("RGBA", (10, 20, 30, 0)), "TIFF", (255, 255, 255)),
        (flat("CMYK", (0, 0, 0, 0)), "TIFF", (255, 255, 255)),
        (flat("CMYK", (255, 0, 0, 0)), "TIFF", (0, 255, 255)),
        (flat("CMYK", (0, 0, 0, 255)), "TIFF", (0, 0, 0)),
        (flat("I;16", 0), "PNG", (0, 0, 0)),
        (flat("I;16", 65535), "PNG", (255, 255, 255)),
        (flat("I;16", 257 * 99), "PNG", (99, 99, 99)),
        (flat("I;16", 257 * 99), "TIFF", (99, 99, 99)),
        (flat("I", 257 * 99), "TIFF", (99, 99, 99)),
        (flat("I", -5), "TIFF", (0, 0, 0)),
        (flat("I", 1_000_000), "TIFF", (255, 255, 255)),
        (flat("F", 0.0), "TIFF", (0, 0, 0)),
        (flat("F", 0.4), "TIFF", (102, 102, 102)),
        (flat("F", 1.0), "TIFF", (255, 255, 255)),
        (flat("F", 7.5), "TIFF", (255, 255, 255)),
        (flat("F", -1.0), "TIFF", (0, 0, 0)),
        (flat("F", float("nan")), "TIFF", (0, 0, 0)),
        (flat("F", float("inf")), "TIFF", (255, 255, 255)),
        (flat("F", float("-inf")), "TIFF", (0, 0, 0)),
    ],
    ids=lambda value: f"{value.mode}{value.getpixel((0, 0))}" if isinstance(value, Image.Image) else None,
)
def test_modes_become_rgb(image: Image.Image, kind: str, wanted: tuple[int, ...]) -> None:
    assert pixel(encode(image, kind)) == wanted


def test_sixteen_bits_in_big_endian_order() -> None:
    pixels = struct.pack(">4H", 0, 257 * 20, 257 * 180, 65535)
    image = Image.frombytes("I;16B", (2, 2), pixels)
    assert decoded(encode(image, "TIFF"))[..., 0].tolist() == [[0, 20], [180, 255]]


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    assert (
        np.abs(
            np.subtract(pixel(encode(flat("CMYK", (255, 0, 0, 0), (16, 16)), "JPEG", quality=100)), (0, 255, 255))
        ).max()
        <= 3
    )


def test_a_palette_and_its_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert decoded(encode(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert decoded(encode(image, transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 50]]]
    assert decoded(encode(image, "GIF", transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert decoded(encode(image, transparency=b"\x00\xff")).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_a_grey_png_with_a_transparent_value() -> None:
    image = Image.new("L", (2, 1))
    image.putdata([9, 80])
    assert decoded(encode(image, transparency=9)).tolist() == [[[255] * 3, [80] * 3]]


def test_an_rgb_png_with_a_transparent_colour() -> None:
    """A tRNS chunk makes one colour of an RGB image transparent; browsers show it so, and we lay it on white."""
    image = Image.new("RGB", (2, 1))
    image.putdata([(1, 2, 3), (40, 50, 60)])
    assert decoded(encode(image, transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_a_deep_grey_png_with_a_transparent_value() -> None:
    image = Image.new("I;16", (2, 1))
    image.putpixel((0, 0), 1000)
    image.putpixel((1, 0), 257 * 80)
    assert decoded(encode(image, transparency=1000)).tolist() == [[[255] * 3, [80] * 3]]
