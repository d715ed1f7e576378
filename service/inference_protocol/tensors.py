"""Tensors as the protocol lays them out: row by row, strings each behind its length."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.errors import BadRequest, TooManyImages

INPUT: Final = "image"

Pixels = npt.NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview

_LENGTH: Final = struct.Struct("<I")  # before every string


@dataclass(frozen=True, slots=True)
class ImageTensor:
    """The input's header, checked: BYTES ``[n]``, encoded images, or UINT8 ``[n, height, width, 3]``, RGB pixels."""

    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def checked(cls, name: object, datatype: object, shape: object, max_images: int) -> ImageTensor:
        """The header of a tensor that a client sends; ``BadRequest`` or ``TooManyImages`` says what is wrong."""
        if name != INPUT:
            raise BadRequest(f"unknown input {shown(name)}; the model takes {INPUT!r}")
        if datatype not in ("BYTES", "UINT8"):
            raise BadRequest(
                f"input {INPUT!r}: datatype {shown(datatype)} is not taken; taken are BYTES [n], encoded images, and "
                "UINT8 [n, height, width, 3], RGB pixels"
            )
        if not isinstance(shape, Sequence) or not all(type(size) is int and size >= 0 for size in shape):
            raise BadRequest(f"input {INPUT!r}: the shape must be a list of whole numbers from 0")
        if datatype == "BYTES" and len(shape) != 1:
            raise BadRequest(f"input {INPUT!r}: BYTES must have the shape [n], one string an image")
        if datatype == "UINT8" and (len(shape) != 4 or shape[3] != 3):
            raise BadRequest(f"input {INPUT!r}: UINT8 must have the shape [n, height, width, 3]")
        if 0 in shape:
            raise BadRequest(f"input {INPUT!r}: the shape {list(shape)} has no image")
        if shape[0] > max_images:
            raise TooManyImages(f"too many images; at most {max_images} are taken in a request")
        return cls("BYTES" if datatype == "BYTES" else "UINT8", tuple(shape))

    def from_binary(self, data: Buffer) -> Sequence[bytes | Pixels]:
        """The images in ``data``, the tensor's binary form; pixels are not copied."""
        return self.from_strings(split_strings(data, self.shape[0])) if self.datatype == "BYTES" else self.pixels(data)

    def from_strings(self, strings: Sequence[bytes]) -> Sequence[bytes]:
        """Encoded images, as many as the shape says, none empty."""
        if len(strings) != self.shape[0]:
            raise BadRequest(f"input {INPUT!r}: the shape says {self.shape[0]} strings, the data has {len(strings)}")
        if not all(strings):
            raise BadRequest(f"input {INPUT!r}: image {[bool(s) for s in strings].index(False)} is empty")
        return strings

    def pixels(self, data: Buffer) -> Sequence[Pixels]:
        """RGB images, views of ``data``."""
        expected = math.prod(self.shape)  # Python's whole numbers: no shape overflows them
        if len(data) != expected:
            raise BadRequest(f"input {INPUT!r}: the shape says {shown(expected)} values, the data has {len(data)}")
        return list(np.frombuffer(data, np.uint8).reshape(self.shape))


def shown(value: object) -> str:
    """What a client sent, short enough for an error message."""
    text = repr(value[:64]) if isinstance(value, str) else str(value) if type(value) is int else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def split_strings(data: Buffer, most: int) -> list[bytes]:
    """The strings of a BYTES tensor in binary form; ``BadRequest`` where a length lies, or there are more."""
    view = memoryview(data)
    strings: list[bytes] = []
    at = 0
    while at < len(view):
        start = at + _LENGTH.size
        if start > len(view) or len(strings) == most:
            raise BadRequest(f"input {INPUT!r}: the data does not hold {most} strings, each behind its length")
        at = start + _LENGTH.unpack_from(view, at)[0]
        if at > len(view):
            raise BadRequest(f"input {INPUT!r}: string {len(strings)} is said to be longer than the data")
        strings.append(bytes(view[start:at]))
    return strings


def join_strings(strings: Iterable[bytes]) -> bytes:
    """A BYTES tensor in binary form."""
    return b"".join(part for string in strings for part in (_LENGTH.pack(len(string)), string))
