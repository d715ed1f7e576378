"""JPEGs whose pixels, scans, segments or metadata cost much."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from tests.security.costly.making import MOST_BYTES, SIDE, exif_bomb, filling, flat, made, noise, saved, tiny


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _with_segments(segments: bytes) -> bytes:
    plain = tiny("JPEG")
    return plain[:2] + segments + plain[2:]


def with_scans(data: bytes, count: int) -> bytes:
    """The progressive JPEG ``data`` with its last scan repeated until there are ``count``."""
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:start] + data[start:end] * (count - data.count(b"\xff\xda") + 1) + data[end:]


@made
def jpeg_noise() -> bytes:
    return filling(Image.fromarray(noise()), "JPEG", (30, 15, 8, 3), subsampling=0)


@made
def jpeg_noise_cmyk() -> bytes:
    return filling(Image.fromarray(noise(channels=4), "CMYK"), "JPEG", (30, 15, 8, 3), subsampling=0)


@made
def jpeg_flat_progressive() -> bytes:
    return saved(flat(), "JPEG", progressive=True, subsampling=0)


@made
def jpeg_noise_progressive() -> bytes:
    return filling(Image.fromarray(noise()), "JPEG", (30, 15, 5, 2), progressive=True, subsampling=0)


@made
def jpeg_noise_progressive_cmyk() -> bytes:
    return filling(Image.fromarray(noise(channels=4), "CMYK"), "JPEG", (15, 5, 2), progressive=True, subsampling=0)


@made
def jpeg_100_scans() -> bytes:
    return with_scans(saved(flat(), "JPEG", progressive=True, subsampling=0), 100)


@made
def jpeg_1000_scans() -> bytes:
    return with_scans(saved(flat(), "JPEG", progressive=True, subsampling=0), 1000)


@made
def jpeg_arithmetic() -> bytes:
    """Random bits are good arithmetic code; there is no encoder for it in Pillow."""
    data = saved(flat(size=(SIDE, SIDE)), "JPEG", subsampling=0)
    scan = data.index(b"\xff\xda") + 14
    coded = np.random.default_rng(0).integers(0, 255, 2**20, dtype=np.uint8).tobytes()
    return data[:scan].replace(b"\xff\xc0", b"\xff\xc9") + coded + b"\xff\xd9"


@made
def jpeg_arithmetic_progressive() -> bytes:
    data = saved(flat(size=(SIDE, SIDE)), "JPEG", subsampling=0, progressive=True)
    return data.replace(b"\xff\xc2", b"\xff\xca")


@made
def jpeg_restarts() -> bytes:
    return saved(flat(), "JPEG", restart_marker_blocks=1, subsampling=0)


@made
def jpeg_segments() -> bytes:
    return _with_segments(_segment(0xE5, b"") * (MOST_BYTES // 4 - 2000))


@made
def jpeg_padding() -> bytes:
    return _with_segments(b"\xff" * (MOST_BYTES - 8000))


@made
def jpeg_junk() -> bytes:
    """Bytes that are no marker, where one should be."""
    return _with_segments(_segment(0xE5, b"") + b"\x00" * (MOST_BYTES - 8000))


@made
def jpeg_exif_pieces() -> bytes:
    return _with_segments(_segment(0xE1, b"Exif\x00\x00" + b"x" * 4) * (MOST_BYTES // 14 - 600))


@made
def jpeg_exif_tags() -> bytes:
    return _with_segments(_segment(0xE1, b"Exif\x00\x00" + exif_bomb(65_000, 5_000)))


@made
def jpeg_exif_tags_in_pieces() -> bytes:
    bomb = exif_bomb(2**20, 20_000)
    return _with_segments(
        b"".join(_segment(0xE1, b"Exif\x00\x00" + bomb[n : n + 60_000]) for n in range(0, 2**20, 60_000))
    )


@made
def jpeg_photoshop() -> bytes:
    one = _segment(0xED, b"Photoshop 3.0\x00" + b"8BIM\x00\x01\x00\x00\x00\x00\x00\x00" * 5400)
    return _with_segments(one * (MOST_BYTES // len(one)))


@made
def jpeg_large_profile() -> bytes:
    one = _segment(0xE2, b"ICC_PROFILE\x00\x01\xff" + b"\x00" * 65_500)
    return _with_segments(one * 150)


@made
def mpo_frames() -> bytes:
    """A directory of four thousand frames, and whose every tag is nearly all of it."""
    bomb = exif_bomb(65_000, 5_000)
    return _with_segments(_segment(0xE2, b"MPF\x00" + bomb))


@made
def mpo_many() -> bytes:
    """Four thousand real entries."""
    count = 4000
    table = struct.pack("<IIIHH", 0x030000, 700, 0, 0, 0) * count
    entries = [(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, struct.pack("<I", count)), (0xB002, 7, len(table), None)]
    head = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(entries))
    at = len(head) + 12 * len(entries) + 4
    body = b"".join(
        struct.pack("<HHI", tag, kind, size) + (struct.pack("<I", at) if value is None else value)
        for tag, kind, size, value in entries
    )
    return _with_segments(_segment(0xE2, b"MPF\x00" + head + body + b"\x00" * 4 + table))


@made
def jpeg_most_in_a_slot() -> bytes:
    """As many pixels times scans as a slot's thread takes."""
    side = 3660  # times ten scans
    return filling(Image.fromarray(noise()[:side, :side]), "JPEG", (30, 15, 5), progressive=True, subsampling=0)
