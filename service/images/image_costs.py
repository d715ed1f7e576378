"""Which images cost so little to decode that a thread may do it, which nobody can end.

A look at the file's structure, before Pillow sees it, and at its size, before any pixel is decoded. The bounds are
measured: an image within them takes at most about a second of processor time and 210 MB (docs/decoding.md, "What an
image may cost"). All others are decoded in a process that is ended where it takes too much (``apart.py``).
"""

from __future__ import annotations

from typing import Final

from service.settings import ImageFormat

_MOST_BYTES: Final = 10 * 2**20
_SMALL: Final = {"jpeg": 64 * 1024, "png": 16 * 1024, "gif": 64 * 1024}
"""In so few bytes no structure is costly: Pillow reads headers piece by piece, in Python."""

_JPEG_SCAN: Final = 0xDA
# Of usual JPEGs: frames of Huffman codes, tables, restart interval, applications' segments, comments.
_JPEG_SEGMENTS: Final = frozenset([0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE])
_MOST_JPEG_SEGMENTS: Final = 1000
_MOST_JPEG_HEADER: Final = 256 * 1024
_MOST_JPEG_PIXELS: Final = 2**24
_MOST_JPEG_PASSES: Final = 2**27
"""Pixels times scans."""

_PNG_PACKED: Final = frozenset([b"zTXt", b"iTXt", b"iCCP"])
_MOST_PNG_CHUNKS: Final = 8192
_MOST_PNG_PACKED: Final = 16
"""Each unpacks to a megabyte at most."""

_MOST_PIXELS: Final = 2**23
_LONGEST_SIDE: Final = 2**16
"""Beyond, it is the resize's tables that cost."""


def is_plain(kind: ImageFormat, data: bytes) -> bool:
    """Whether a look at the header cannot cost much: it has no more parts than such files have.

    Microseconds for a photo, as it has a dozen segments; small files are plain as they are.
    """
    if len(data) > _MOST_BYTES:
        return False
    match kind:
        case "jpeg":
            return len(data) <= _SMALL[kind] or _is_plain_jpeg(data)
        case "png":
            return len(data) <= _SMALL[kind] or _is_plain_png(data)
        case "webp":  # a picture, not an animation, whose canvas may be larger than any of its frames
            return data[12:16] != b"VP8X" or not data[20:21] or not data[20] & 0x02
        case "gif":
            return len(data) <= _SMALL[kind]
        case "bmp":  # not run-length coded, which Pillow decodes in Python
            return data[14:18] >= b"\x28" and data[30:34] in (b"\x00\x00\x00\x00", b"\x03\x00\x00\x00")
        case "tiff":  # a dozen codecs, and as many ways to lay out the pixels
            return False


def is_cheap(kind: ImageFormat, size: tuple[int, int], scans: int) -> bool:
    """Whether the pixels of a plain image of ``size`` cannot cost much; ``scans`` are a JPEG's."""
    pixels = size[0] * size[1]
    if kind == "jpeg":
        return pixels <= _MOST_JPEG_PIXELS and pixels * scans <= _MOST_JPEG_PASSES
    return pixels <= _MOST_PIXELS and max(size) <= _LONGEST_SIDE


def _is_plain_jpeg(data: bytes) -> bool:
    """Segment after segment to the first scan (ITU-T T.81, B.1.1), with nothing between them."""
    at = 2
    for _ in range(_MOST_JPEG_SEGMENTS):
        head = data[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF:
            return False
        if head[1] == _JPEG_SCAN:
            return True
        length = head[2] << 8 | head[3]
        at += 2 + length
        if head[1] not in _JPEG_SEGMENTS or length < 2 or at > _MOST_JPEG_HEADER:
            return False
    return False


def _is_plain_png(data: bytes) -> bool:
    """Chunk after chunk to the end (PNG, section 5.3); one that is cut off ends it, too."""
    at, packed = 8, 0
    for _ in range(_MOST_PNG_CHUNKS):
        kind = data[at + 4 : at + 8]
        if kind == b"IEND" or len(kind) < 4:
            return True
        if kind in _PNG_PACKED:
            packed += 1
            if packed > _MOST_PNG_PACKED:
                return False
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False
