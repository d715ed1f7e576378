"""PNGs whose pixels, chunks or compressed texts cost much."""

from __future__ import annotations

import struct
import zlib
from typing import Final

from PIL import Image

from tests.security.costly.making import MOST_BYTES, SIDE, exif_bomb, made, noise, saved, tiny


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(
    depth: int,
    colour: int,
    interlaced: bool,
    row: bytes,
    size: tuple[int, int] = (SIDE, SIDE),
    extra: bytes = b"",
) -> bytes:
    """A PNG of rows of zeros, filtered in the way that costs most to undo."""
    width, height = size
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    packer, packed = zlib.compressobj(9), []
    for y_step, x_step, y_first, x_first in _ADAM7 if interlaced else ((1, 1, 0, 0),):
        columns, rows = -(-(width - x_first) // x_step), -(-(height - y_first) // y_step)
        if columns > 0 and rows > 0:
            width_bytes = columns * len(row) if depth >= 8 else -(-columns * depth // 8)
            line = b"\x04" + bytes(width_bytes)
            packed += [packer.compress(line) for _ in range(rows)]
    packed.append(packer.flush())
    return b"\x89PNG\r\n\x1a\n" + header + extra + _chunk(b"IDAT", b"".join(packed)) + _chunk(b"IEND", b"")


_ADAM7: Final = ((8, 8, 0, 0), (8, 8, 0, 4), (8, 4, 4, 0), (4, 4, 0, 2), (4, 2, 2, 0), (2, 2, 0, 1), (2, 1, 1, 0))


def _png_with(chunks: bytes, behind: bool = False) -> bytes:
    plain = tiny("PNG")
    at = plain.index(b"IEND" if behind else b"IDAT") - 4
    return plain[:at] + chunks + plain[at:]


def _texts(count: int = 62) -> bytes:
    """Megabytes of text; 62 are as many as Pillow takes."""
    text = b"\x00\x00" + zlib.compress(bytes(1_000_000), 9)
    return b"".join(_chunk(b"zTXt", b"%d" % n + text) for n in range(count))


@made
def png_most_in_a_slot() -> bytes:
    """As many pixels and texts as a slot's thread takes, in the mode that takes most."""
    return _png(16, 6, True, bytes(8), (SIDE, SIDE // 2), _texts(16))


@made
def png_flat_rgb() -> bytes:
    return _png(8, 2, False, bytes(3))


@made
def png_noise_rgb() -> bytes:
    return saved(Image.fromarray(noise(levels=2)[:3000]), "PNG", compress_level=1)


@made
def png_flat_rgba() -> bytes:
    return _png(8, 6, False, bytes(4))


@made
def png_deep_rgba() -> bytes:
    return _png(16, 6, False, bytes(8))


@made
def png_deep_rgba_interlaced() -> bytes:
    return _png(16, 6, True, bytes(8))


@made
def png_rgba_interlaced() -> bytes:
    return _png(8, 6, True, bytes(4))


@made
def png_deep_grey() -> bytes:
    return _png(16, 0, False, bytes(2))


@made
def png_deep_grey_transparent() -> bytes:
    return _png(16, 0, False, bytes(2), extra=_chunk(b"tRNS", b"\x00\x01"))


@made
def png_rgb_transparent() -> bytes:
    return _png(8, 2, False, bytes(3), extra=_chunk(b"tRNS", bytes(6)))


@made
def png_palette_transparent() -> bytes:
    return _png(8, 3, False, bytes(1), extra=_chunk(b"PLTE", bytes(768)) + _chunk(b"tRNS", bytes(256)))


@made
def png_bits_interlaced() -> bytes:
    return _png(1, 0, True, b"")


@made
def png_long() -> bytes:
    """One row of as many pixels as there may be."""
    return _png(8, 2, False, bytes(3), (SIDE * SIDE, 1))


@made
def png_tall() -> bytes:
    return _png(8, 2, False, bytes(3), (1, SIDE * SIDE))


@made
def png_text_bombs() -> bytes:
    return _png_with(_texts())


@made
def png_itxt_bombs() -> bytes:
    text = b"\x00\x01\x00\x00\x00" + zlib.compress(bytes(1_000_000), 9)
    return _png_with(b"".join(_chunk(b"iTXt", b"%d" % n + text) for n in range(62)), behind=True)


@made
def png_text_beside_pixels() -> bytes:
    """Both at once: all pixels and all text that there may be."""
    return _png(16, 6, False, bytes(8), extra=_texts())


@made
def png_profile_bomb() -> bytes:
    one = _chunk(b"iCCP", b"k\x00\x00" + zlib.compress(bytes(1_000_000), 9))
    return _png_with(one * 10_000)


@made
def png_chunks() -> bytes:
    return _png_with(_chunk(b"teSt", b"") * (MOST_BYTES // 12 - 2000))


@made
def png_chunks_behind() -> bytes:
    return _png_with(_chunk(b"tEXt", b"k\x00v") * (MOST_BYTES // 15 - 2000), behind=True)


@made
def png_pixels_in_pieces() -> bytes:
    """A chunk for every byte of the pixels."""
    side = 500
    rows = b"".join(b"\x00" + row.tobytes() for row in noise(side))
    pieces = b"".join(_chunk(b"IDAT", bytes([byte])) for byte in zlib.compress(rows, 0))
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + pieces + _chunk(b"IEND", b"")


@made
def png_exif_tags() -> bytes:
    return _png_with(_chunk(b"eXIf", exif_bomb(2**20, 60_000)), behind=True)


@made
def apng_frames() -> bytes:
    frames = [Image.new("RGB", (64, 64), (n % 256, n // 256, 0)) for n in range(3000)]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:])


@made
def png_bomb_beyond_the_bound() -> bytes:
    packer = zlib.compressobj(1)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    data = b"".join(packer.compress(bytes(10**6)) for _ in range(1800)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
