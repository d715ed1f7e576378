"""WebPs whose pixels, frames or chunks cost much."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from tests.security.costly.making import MOST_BYTES, SIDE, exif_bomb, filling, made, noise, saved, tiny


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\x00" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _u24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def _vp8x(flags: int, width: int, height: int) -> tuple[bytes, bytes]:
    return b"VP8X", bytes([flags, 0, 0, 0]) + _u24(width - 1) + _u24(height - 1)


@made
def webp_noise() -> bytes:
    return filling(Image.fromarray(noise()), "WEBP", (20, 5), method=0)


@made
def webp_lossless() -> bytes:
    return saved(Image.fromarray(noise(levels=2)), "WEBP", lossless=True, quality=0, method=0)


@made
def webp_lossless_alpha() -> bytes:
    return saved(Image.fromarray(noise(channels=4, levels=2)), "WEBP", lossless=True, quality=0, method=0, exact=True)


@made
def webp_lossless_best() -> bytes:
    tile = noise(256, 3, 32)
    return saved(
        Image.fromarray(np.tile(tile, (SIDE // 256, SIDE // 256, 1))), "WEBP", lossless=True, quality=50, method=2
    )


@made
def webp_alpha() -> bytes:
    return filling(Image.fromarray(noise(channels=4, levels=64)), "WEBP", (5, 1), method=0, alpha_quality=30)


@made
def webp_frames() -> bytes:
    frames = [Image.new("RGB", (64, 64), (n % 256, n // 256, 0)) for n in range(2000)]
    return saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0)


@made
def webp_large_canvas() -> bytes:
    """Small frames on a canvas of as many pixels as there may be."""
    inner = tiny("WEBP")[12:]
    frame = _u24(0) * 2 + _u24(63) * 2 + _u24(100) + b"\x02" + inner
    return _riff(_vp8x(0x12, SIDE, SIDE), (b"ANIM", bytes(6)), (b"ANMF", frame), (b"ANMF", frame))


@made
def webp_frames_by_the_hundred_thousand() -> bytes:
    inner = saved(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    frame = _u24(0) * 2 + _u24(0) * 2 + _u24(100) + b"\x02" + inner
    return _riff(_vp8x(0x02, 64, 64), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * (MOST_BYTES // (len(frame) + 9)))


@made
def webp_chunks() -> bytes:
    inner = tiny("WEBP")
    return _riff(_vp8x(0, 64, 64), (b"VP8 ", inner[20:]), *[(b"teSt", b"")] * (MOST_BYTES // 8 - 2000))


@made
def webp_exif_tags() -> bytes:
    inner = tiny("WEBP")
    return _riff(_vp8x(8, 64, 64), (b"VP8 ", inner[20:]), (b"EXIF", exif_bomb(2**20, 60_000)))


@made
def webp_most_in_a_slot() -> bytes:
    """As many pixels as a slot's thread takes."""
    pixels = noise(channels=4, levels=2)[: SIDE // 2]
    return saved(Image.fromarray(pixels), "WEBP", lossless=True, quality=0, method=0, exact=True)


@made
def webp_noise_most_in_a_slot() -> bytes:
    return filling(Image.fromarray(noise(channels=4, levels=64)[: SIDE // 2]), "WEBP", (20, 5), method=0)
