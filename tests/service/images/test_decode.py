from __future__ import annotations

import contextlib
import io
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from model_store.manifest import JpegScaling, Preprocessing
from model_store.reports import Gate
from model_store.transforms import to_rgb, to_tensor
from service.errors import BadImage, ImageError, ImageTooLarge, NotAnImage
from service.images.decode import Decoder, decoding_errors, sniff
from service.settings import DecodeSettings, ImageFormat
from tests.service.conftest import a_picture, encode

ALL_FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
ORIENTATION = 0x0112

# Filters set at import do not hold within pytest; that Pillow is kept quiet is tested in a process of its own.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def a_decoder(formats: tuple[ImageFormat, ...] = ALL_FORMATS, **limits: Any) -> Decoder:
    return Decoder(DecodeSettings(image_formats=formats, **limits))


@pytest.fixture
def decoder() -> Decoder:
    return a_decoder()


@pytest.fixture(autouse=True)
def _keep_pillows_limit() -> Iterator[None]:
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit


def decoded(data: bytes, decoder: Decoder | None = None) -> np.ndarray:
    image = (decoder or a_decoder()).decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def pixel(data: bytes) -> tuple[int, ...]:
    """The top left pixel, decoded."""
    return tuple(decoded(data)[0, 0].tolist())


def flat(mode: str, colour: Any, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


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
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(ImageTooLarge):
        a_decoder().decode(data)


def test_a_text_bomb_is_a_bad_image_or_ignored(decoder: Decoder) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 80 * 2**20, zip=True)
    data = encode(a_picture(), pnginfo=info)
    with contextlib.suppress(ImageError):
        assert decoder.decode(data).size == (8, 8)


# Colours


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


# Orientation


# Large enough to be decoded smaller, with sides that no scale divides.
_CORNERED = Image.new("RGB", (241, 163), "white")
_CORNERED.paste("black", (0, 0, 120, 80))


def _reoriented(upright: Image.Image, orientation: int) -> Image.Image:
    """``upright`` as a camera would store it with ``orientation``: the inverse of what a viewer does."""
    flips = Image.Transpose
    inverse = {
        1: [],
        2: [flips.FLIP_LEFT_RIGHT],
        3: [flips.ROTATE_180],
        4: [flips.FLIP_TOP_BOTTOM],
        5: [flips.TRANSPOSE],
        6: [flips.ROTATE_90],
        7: [flips.TRANSVERSE],
        8: [flips.ROTATE_270],
    }
    for step in inverse[orientation]:
        upright = upright.transpose(step)
    return upright


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(kind: str, orientation: int) -> None:
    upright = a_picture(size=(6, 4))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encode(_reoriented(upright, orientation), kind, exif=exif, **options)
    assert np.array_equal(decoded(data), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_upright(orientation: int) -> None:
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste("black", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    result = decoded(encode(_reoriented(upright, orientation), "JPEG", quality=95, exif=exif))
    assert result.shape == (32, 48, 3)
    assert np.abs(result.astype(int) - np.asarray(upright)).max() < 40


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16", "1"])
def test_every_mode_is_turned_upright(mode: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert decoded(encode(Image.new(mode, (6, 4)), exif=exif)).shape == (6, 4, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert decoded(encode(a_picture(size=(6, 4)), exif=exif)).shape == (4, 6, 3)


_SEGMENTS = st.lists(
    st.sampled_from(
        [
            b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x01\x00\x48\x00\x48\x00\x00",
            b"\xff\xe1\x00\x08Exif\x00\x00",
            b"\xff\xe1\x00\x06XMP ",
            b"\xff\xed\x00\x04ab",
            b"\xff\xfe\x00\x09comment",
            b"\xff\xff",
        ]
    ),
    max_size=4,
)


def _exif_of(orientation: int, order: str, tags_before: int) -> bytes:
    """EXIF as cameras write it, the orientation behind other tags."""
    tags = [(0x0100 + i, 3, 1) for i in range(tags_before)] + [(ORIENTATION, 3, orientation)]
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0) for tag, kind, value in tags)
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(f"{order}I", 8)
    return b"Exif\x00\x00" + head + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


@given(
    orientation=st.integers(0, 9),
    order=st.sampled_from("<>"),
    tags_before=st.integers(0, 5),
    segments=_SEGMENTS,
    where=st.integers(0, 4),
    tell=st.sampled_from(["exif", "xmp", "both"]),
)
def test_an_orientation_is_found_wherever_it_stands(
    orientation: int, order: str, tags_before: int, segments: list[bytes], where: int, tell: str
) -> None:
    """Pillow's own turning is the oracle, on the same file."""
    parts = {
        "exif": _exif_of(orientation, order, tags_before),
        "xmp": f'http://ns.adobe.com/xap/1.0/\x00<rdf tiff:Orientation="{orientation}"/>'.encode(),
    }
    told = [parts[name] for name in (("exif", "xmp") if tell == "both" else (tell,))]
    marked = [b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in told]
    plain = encode(_CORNERED, "JPEG", quality=95)
    data = plain[:2] + b"".join([*segments[:where], *marked, *segments[where:]]) + plain[2:]
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decoded(data), wanted)
    whole, scaled = (a_decoder().tensor(data, spec).pixels for spec in (a_spec(), a_scaling_spec()))
    assert np.abs(whole.astype(int) - scaled).max() < 40


@given(orientation=st.integers(0, 9), order=st.sampled_from("<>"), behind=st.booleans())
def test_an_orientation_is_found_before_and_behind_the_pixels_of_a_png(
    orientation: int, order: str, behind: bool
) -> None:
    exif = _exif_of(orientation, order, 1)[6:]
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    plain = encode(_CORNERED)
    at = plain.index(b"IEND") - 4 if behind else plain.index(b"IDAT") - 4
    data = plain[:at] + chunk + plain[at:]
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decoded(data), wanted)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00",
        b"Exif\x00\x00garbage",
        b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02\x00\x00\x00\x03abc\x00\x00\x00\x00\x00",
        # Upside down, behind a tag of a type that does not exist.
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x02\x01\x0f\x00\x63\x00\x00\x00\x01\x00\x00\x00\x00"
        b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x03\x00\x00\x00\x00\x00\x00",
    ],
)
def test_broken_exif_does_not_spoil_good_pixels(exif: bytes) -> None:
    """Any viewer shows such an image; so it is an image."""
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    plain = encode(flat("RGB", (50, 60, 70), (16, 16)), "JPEG")
    data = plain[:2] + segment + plain[2:]
    assert np.abs(decoded(data).astype(int) - (50, 60, 70)).max() <= 3


# Straight to the network's input


def a_spec(side: int = 16, resize: int = 20) -> Preprocessing:
    return Preprocessing(height=side, width=side, resize=resize, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_a_tensor_is_the_decoded_image_transformed(kind: ImageFormat, decoder: Decoder) -> None:
    data, spec = encode(a_picture(size=(50, 37)), kind), a_spec()
    assert np.array_equal(decoder.tensor(data, spec).pixels, to_tensor(decoder.decode(data), spec))


def test_a_tensor_goes_into_its_row_of_a_batch_and_no_other(decoder: Decoder) -> None:
    data, spec = encode(a_picture(size=(50, 37))), a_spec()
    batch = np.full((3, 16, 16, 3), 7, np.uint8)
    row = decoder.tensor(data, spec, batch[1]).pixels
    assert np.shares_memory(row, batch[1])
    assert np.array_equal(batch[1], decoder.tensor(data, spec).pixels)
    assert (batch[[0, 2]] == 7).all()


@pytest.mark.parametrize("fault", ["no image", "broken", "truncated", "too large"])
def test_a_bad_image_leaves_its_row_as_it_was(fault: str) -> None:
    good = encode(a_picture(size=(64, 64)), "JPEG")
    cuts = {"no image": b"hello", "broken": good[:40], "truncated": good[: len(good) * 2 // 3], "too large": good}
    row = np.full((16, 16, 3), 7, np.uint8)
    with pytest.raises(ImageError):
        a_decoder(max_pixels=2000 if fault == "too large" else 5000).tensor(cuts[fault], a_spec(), row)
    assert (row == 7).all()


def a_scaling_spec(side: int = 16, resize: int = 20) -> Preprocessing:
    """As ``a_spec``, with JPEGs decoded smaller."""
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
    return a_spec(side, resize).model_copy(update={"jpeg_scaling": JpegScaling(margin=2, gate=gate)})


def test_large_jpegs_are_decoded_smaller_where_the_model_says_so(decoder: Decoder) -> None:
    data, spec = encode(a_picture(size=(320, 240)), "JPEG"), a_scaling_spec()
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (40, 40))
        assert image.size == (80, 60)
        wanted = to_tensor(to_rgb(image), spec)
    assert not np.array_equal(wanted, decoder.tensor(data, a_spec()).pixels)
    assert np.array_equal(decoder.tensor(data, spec).pixels, wanted)
    assert decoder.decode(data).size == (320, 240)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_that_are_decoded_smaller_are_upright(orientation: int, decoder: Decoder) -> None:
    upright = Image.new("RGB", (481, 323), "white")
    upright.paste("black", (0, 0, 240, 160))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(_reoriented(upright, orientation), "JPEG", quality=95, exif=exif)
    difference = decoder.tensor(data, a_scaling_spec()).pixels.astype(int) - to_tensor(upright, a_spec())
    assert np.abs(difference).max() < 40


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_the_upright_image(orientation: int, kind: str, decoder: Decoder) -> None:
    """As it would be decoded whole, whichever way it lies and however much smaller it is decoded."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(_reoriented(a_picture(size=(481, 323)), orientation), kind, exif=exif)
    assert decoder.decode(data).size == (481, 323)
    for spec in (a_spec(), a_scaling_spec()):
        assert decoder.tensor(data, spec).whole == (481, 323)


def test_the_size_of_pixels(decoder: Decoder) -> None:
    assert decoder.tensor(np.zeros((30, 50, 3), np.uint8), a_spec()).whole == (50, 30)


def test_the_pixel_limit_is_of_the_whole_jpeg() -> None:
    data = encode(a_picture(size=(320, 240)), "JPEG")
    with pytest.raises(ImageTooLarge):
        a_decoder(max_pixels=320 * 240 - 1).tensor(data, a_scaling_spec())


def test_tensors_are_made_in_many_threads_at_once(decoder: Decoder) -> None:
    spec = a_spec()
    pictures = [encode(a_picture(size=(40 + i, 37)), kind) for i in range(8) for kind in ("JPEG", "PNG", "WEBP")]
    batch = np.zeros((len(pictures) * 4, 16, 16, 3), np.uint8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data, row: decoder.tensor(data, spec, row), pictures * 4, batch))
    for data, row in zip(pictures * 4, batch, strict=True):
        assert np.array_equal(row, decoder.tensor(data, spec).pixels)


# Whatever comes in


def _check(decoder: Decoder, data: bytes) -> bool:
    """Decode, letting nothing but an ``ImageError`` out; whether it gave an image."""
    row = np.full((16, 16, 3), 7, np.uint8)
    try:
        decoder.tensor(data, a_scaling_spec(), row)
    except ImageError:
        assert (row == 7).all()
    try:
        image = decoder.decode(data)
    except ImageError as error:
        message = error.message
    else:
        assert image.mode == "RGB"
        assert min(image.size) >= 1
        assert np.asarray(image).shape == (image.height, image.width, 3)
        return True
    assert message
    assert "/" not in message
    assert "0x" not in message
    return False


_MAGIC = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP", b"GIF89a", b"II*\x00", b"MM\x00*", b"BM"]


@given(magic=st.sampled_from(_MAGIC), data=st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_image_errors(magic: bytes, data: bytes) -> None:
    _check(a_decoder(max_pixels=100_000), magic + data)


_SAVED = {
    "jpeg": ("L", "RGB", "CMYK"),
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "gif": ("1", "L", "P", "RGB", "RGBA"),
    "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB"),
}
_KIND_AND_MODE = st.sampled_from([(kind, mode) for kind, modes in _SAVED.items() for mode in modes])
_OPTIONS = {
    "jpeg": st.sampled_from([{}, {"progressive": True}, {"subsampling": 0}, {"quality": 1}]),
    "png": st.sampled_from([{}, {"compress_level": 0}, {"optimize": True}]),
    "webp": st.sampled_from([{}, {"lossless": True}]),
    "bmp": st.just({}),
    "gif": st.sampled_from([{}, {"interlace": False}]),
    "tiff": st.sampled_from(
        [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"big_tiff": True}]
    ),
}


@st.composite
def images(draw: st.DrawFn) -> tuple[Image.Image, bytes]:
    kind, mode = draw(_KIND_AND_MODE)
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    noise = random.Random(draw(st.integers(0, 2**32))).randbytes(width * height * 4)
    image = Image.new(mode, (width, height))
    size = len(image.tobytes())
    image.frombytes(noise[:size] if mode != "F" else np.linspace(0, 1, width * height, dtype=np.float32).tobytes())
    if mode == "P":
        image.putpalette(random.Random(0).randbytes(768))
    return image, encode(image, kind, **draw(_OPTIONS[kind]))


@given(images())
def test_every_valid_image_decodes(sample: tuple[Image.Image, bytes]) -> None:
    image, data = sample
    # BigTIFF has a number of its own; it need not be taken, but must not crash.
    if data.startswith((b"II+\x00", b"MM\x00+")):
        _check(a_decoder(), data)
        return
    assert decoded(data).shape == (image.height, image.width, 3)


@given(images(), st.data())
def test_mutated_images_raise_nothing_but_image_errors(sample: tuple[Image.Image, bytes], data: st.DataObject) -> None:
    broken = bytearray(sample[1])
    for _ in range(data.draw(st.integers(1, 6))):
        where = data.draw(st.integers(0, len(broken) - 1))
        match data.draw(st.sampled_from(["set", "delete", "repeat", "cut"])):
            case "set":
                broken[where] = data.draw(st.sampled_from([0, 1, 127, 128, 254, 255]))
            case "delete":
                del broken[where : where + data.draw(st.integers(1, 8))]
            case "repeat":
                broken[where:where] = broken[where : where + 16]
            case "cut":
                del broken[max(where, 12) :]
        assume(broken)
    _check(a_decoder(max_pixels=100_000), bytes(broken))


@given(images(), st.integers(0, 3000))
def test_truncated_images_raise_nothing_but_image_errors(sample: tuple[Image.Image, bytes], length: int) -> None:
    _check(a_decoder(), sample[1][:length])


@settings(max_examples=20)
@given(images(), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=30))
def test_broken_headers_raise_nothing_but_image_errors(
    sample: tuple[Image.Image, bytes], changes: list[tuple[int, int]]
) -> None:
    broken = bytearray(sample[1])
    for where, value in changes:
        broken[where % len(broken)] = value
    _check(a_decoder(max_pixels=100_000), bytes(broken))


def test_odd_images_give_an_image_or_an_image_error(shared: Path) -> None:
    decoder = a_decoder()
    escaped, taken = [], 0
    with zipfile.ZipFile(shared / "data" / "odd-images.zip") as files:
        names = [name for name in files.namelist() if not name.endswith("/")]
        for name in names:
            try:
                taken += _check(decoder, files.read(name))
            except Exception as error:  # noqa: BLE001
                escaped.append(f"{name}: {type(error).__name__}: {error}")
    assert not escaped, "\n".join(escaped)
    assert taken > 0.85 * len(names)


_DECODE_ALL = """
import sys, zipfile
from typing import get_args
from model_store.manifest import JpegScaling, Preprocessing
from model_store.reports import Gate
from model_store.transforms import to_rgb, to_tensor
from service.settings import DecodeSettings, ImageFormat
from service.images.decode import Decoder
from service.errors import ImageError
decoder = Decoder(DecodeSettings(image_formats=get_args(ImageFormat)))
with zipfile.ZipFile(sys.argv[1]) as files:
    for name in files.namelist():
        if not name.endswith("/"):
            try:
                decoder.decode(files.read(name))
            except ImageError:
                pass
            except Warning as warning:
                print(f"{name}: {type(warning).__name__}: {warning}")
"""


def test_no_warning_of_pillow_escapes(shared: Path) -> None:
    """As the service runs: what a client sends writes no warnings into the log."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _DECODE_ALL, str(shared / "data" / "odd-images.zip")],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_basic_set_of_png_decodes(shared: Path) -> None:
    """PNGSuite: all but the files that begin with x are valid."""
    decoder = a_decoder()
    with zipfile.ZipFile(shared / "data" / "odd-images.zip") as files:
        for name in files.namelist():
            if name.startswith("pngsuite/") and name.endswith(".png"):
                assert _check(decoder, files.read(name)) or Path(name).name.startswith("x"), name


def test_orientation_samples_are_all_alike(shared: Path) -> None:
    decoder = a_decoder()
    with zipfile.ZipFile(shared / "data" / "odd-images.zip") as files:
        for group in ("Landscape", "Portrait"):
            names = [n for n in files.namelist() if n.startswith(f"exif-orientation/{group}_") and n.endswith(".jpg")]
            assert len(names) >= 8
            pictures = [
                np.asarray(decoder.decode(files.read(name)).resize((64, 64))).astype(float) for name in sorted(names)
            ]
            for picture in pictures[1:]:
                assert np.abs(picture - pictures[0]).mean() < 12


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
