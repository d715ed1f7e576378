"""GIFs, BMPs and TIFFs that cost much."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from tests.security.costly.making import MOST_BYTES, SIDE, flat, made, noise, saved, tiny


@made
def gif_noise() -> bytes:
    return saved(Image.fromarray(noise(channels=1, levels=4)), "GIF")


@made
def gif_flat() -> bytes:
    return saved(flat("L"), "GIF")


@made
def gif_frames() -> bytes:
    frames = [Image.new("L", (64, 64), n % 256) for n in range(3000)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


@made
def gif_comments() -> bytes:
    plain = tiny("GIF")
    at = plain.index(b"\x2c", 13 + 3 * 2 ** ((plain[10] & 7) + 1))
    return plain[:at] + b"!\xfe" + b"\x01x" * (MOST_BYTES // 2 - 8000) + b"\x00" + plain[at:]


@made
def bmp_runs() -> bytes:
    """Run-length coded, which Pillow decodes in Python."""
    palette = bytes(1024)
    coded = (b"\xff\x00" * (SIDE // 255) + bytes([SIDE % 255, 0]) + b"\x00\x00") * SIDE + b"\x00\x01"
    head = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 1, len(coded), 0, 0, 256, 256)
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(coded), 0, 0, start) + head + palette + coded


@made
def bmp_runs_of_one() -> bytes:
    palette = bytes(1024)
    side = 2000
    coded = (b"\x01\x00" * side + b"\x00\x00") * side + b"\x00\x01"
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(coded), 0, 0, 256, 256)
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(coded), 0, 0, start) + head + palette + coded


@made
def bmp_bits() -> bytes:
    return saved(flat("1"), "BMP")


def _tiff(width: int, height: int, tags: dict[int, tuple[int, list[int]]], data: bytes) -> bytes:
    """A grey TIFF with ``data`` behind its directory; an offset of -1 is where it begins."""
    found: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [8]), 262: (3, [1]), 277: (3, [1]), 278: (4, [height]),
        273: (4, [-1]), 279: (4, [len(data)]), 259: (3, [1]),
    } | tags  # fmt: skip
    at = 8 + 2 + 12 * len(found) + 4
    values_of = {
        tag: struct.pack(f"<{len(v)}{'H' if k == 3 else 'I'}", *(max(n, 0) for n in v)) for tag, (k, v) in found.items()
    }
    start = at + sum(len(v) for v in values_of.values() if len(v) > 4)
    entries, behind = b"", b""
    for tag, (kind, values) in sorted(found.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *(start if n == -1 else n for n in values))
        if len(packed) > 4:
            entries += struct.pack("<HHII", tag, kind, len(values), at + len(behind))
            behind += packed
        else:
            entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\x00")
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(found)) + entries + bytes(4) + behind + data


@made
def tiff_floats() -> bytes:
    return saved(flat("F"), "TIFF", compression="tiff_adobe_deflate")


@made
def tiff_deep() -> bytes:
    return saved(flat("I"), "TIFF", compression="tiff_adobe_deflate")


@made
def tiff_lab() -> bytes:
    return saved(flat("LAB"), "TIFF", compression="tiff_adobe_deflate")


@made
def tiff_strips() -> bytes:
    """A strip for every row, all of them the same bytes."""
    strips = 2**20
    return _tiff(16, strips, {278: (4, [1]), 273: (4, [-1] * strips), 279: (4, [16] * strips)}, bytes(16))


@made
def tiff_tags() -> bytes:
    """A tag of two million numbers."""
    return _tiff(64, 64, {700: (3, [1] * 2_000_000)}, bytes(64 * 64))


@made
def tiff_large_tile() -> bytes:
    """One tile of far more pixels than the image."""
    tags = {322: (4, [60_000]), 323: (4, [60_000]), 324: (4, [-1]), 325: (4, [1000]), 259: (3, [8])}
    return _tiff(64, 64, tags, zlib.compress(bytes(1000)))


@made
def tiff_deflate_bomb() -> bytes:
    return _tiff(SIDE, SIDE, {259: (3, [8])}, zlib.compress(bytes(300 * 2**20), 9))


@made
def tiff_fax() -> bytes:
    return saved(flat("1"), "TIFF", compression="group4")


@made
def tiff_lzma() -> bytes:
    return saved(flat(), "TIFF", compression="lzma")


@made
def tiff_jpeg() -> bytes:
    return saved(flat(), "TIFF", compression="jpeg")
