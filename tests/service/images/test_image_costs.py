"""Which images a thread may decode: usual ones, and none whose structure or size costs much."""

from __future__ import annotations

import struct
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.images.image_costs import is_cheap, is_plain
from service.settings import ImageFormat
from tests.service.conftest import a_picture, encode

LARGE = 80_000
"""Bytes beyond which the structure is looked at."""


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + bytes(4)


def a_jpeg(segments: bytes = b"", size: tuple[int, int] = (400, 300), **options: object) -> bytes:
    data = encode(a_picture(size=size), "JPEG", quality=95, **options)
    assert len(data) > LARGE
    return data[:2] + segments + data[2:]


def a_png(chunks: bytes = b"") -> bytes:
    data = encode(a_picture(size=(400, 300)))
    assert len(data) > LARGE
    at = data.index(b"IDAT") - 4
    return data[:at] + chunks + data[at:]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 1}])
def test_usual_jpegs_are_plain(options: dict[str, object]) -> None:
    assert is_plain("jpeg", a_jpeg(**options))
    assert is_plain("jpeg", a_jpeg(segment(0xE1, b"Exif\x00\x00" + bytes(30_000)) + segment(0xED, bytes(60_000))))


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * LARGE,
        segment(0xE5, b"") + bytes(LARGE),
        segment(0xE5, b"") * 1100,
        segment(0xE2, bytes(60_000)) * 5,
        b"\xff\xe5\x00\x01",
        b"\xff\xe5\x00\x00",
        b"\xff\xd0",
        b"\xff\xf0",
    ],
    ids=["padding", "junk", "many segments", "long header", "length 1", "length 0", "restart", "extension"],
)
def test_jpegs_with_a_costly_header_are_not(header: bytes) -> None:
    assert not is_plain("jpeg", a_jpeg(header))


def test_arithmetic_coding_is_not_plain() -> None:
    assert not is_plain("jpeg", a_jpeg().replace(b"\xff\xc0", b"\xff\xc9"))


def test_a_jpeg_without_a_scan_is_not_plain() -> None:
    assert not is_plain("jpeg", b"\xff\xd8" + segment(0xE0, bytes(60_000)) * 2)


def test_pngs_by_their_chunks() -> None:
    assert is_plain("png", a_png())
    assert is_plain("png", a_png(chunk(b"iTXt", bytes(1000)) * 16))
    assert not is_plain("png", a_png(chunk(b"iTXt", bytes(10)) * 17))
    assert not is_plain("png", a_png((chunk(b"zTXt") + chunk(b"iCCP")) * 9))
    assert is_plain("png", a_png(chunk(b"tEXt") * 8000))
    assert not is_plain("png", a_png(chunk(b"tEXt") * 8192))


def test_small_files_are_plain_as_they_are() -> None:
    for kind in ("jpeg", "png", "gif"):
        assert is_plain(kind, bytes(100))
        assert is_plain(kind, encode(a_picture(), kind))


@pytest.mark.parametrize("kind", [kind for kind in get_args(ImageFormat) if kind != "tiff"])
def test_no_large_file_is_plain(kind: ImageFormat) -> None:
    data = encode(a_picture(), kind)
    assert is_plain(kind, data)
    assert not is_plain(kind, data.ljust(10 * 2**20 + 1, b"\x00"))


def test_other_formats() -> None:
    assert not is_plain("tiff", encode(a_picture(), "tiff"))
    assert not is_plain("gif", bytes(LARGE))
    assert not is_plain("webp", encode(a_picture(), "webp", save_all=True, append_images=[a_picture(1)]))
    assert is_plain("webp", encode(a_picture(), "webp", exif=b"Exif\x00\x00"))
    bmp = encode(a_picture(), "bmp")
    assert not is_plain("bmp", bmp[:30] + b"\x01" + bmp[31:])
    assert not is_plain("bmp", bmp[:30] + b"\x02" + bmp[31:])


@given(kind=st.sampled_from(get_args(ImageFormat)), data=st.binary(max_size=200), times=st.sampled_from([1, 1000]))
def test_any_bytes_are_judged(kind: ImageFormat, data: bytes, times: int) -> None:
    assert is_plain(kind, data * times) in (True, False)


def test_size_and_scans() -> None:
    assert is_cheap("jpeg", (4096, 4096), 1)
    assert is_cheap("jpeg", (4096, 4096), 8)
    assert not is_cheap("jpeg", (4096, 4096), 9)
    assert is_cheap("jpeg", (4000, 3000), 10)
    assert not is_cheap("jpeg", (4097, 4096), 1)
    assert is_cheap("png", (4096, 2048), 0)
    assert not is_cheap("png", (4096, 2049), 0)
    assert is_cheap("png", (2**16, 1), 0)
    assert not is_cheap("png", (1, 2**16 + 1), 0)
