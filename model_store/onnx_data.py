"""Whether an ONNX file keeps weights elsewhere, found from its encoding alone: the serving side has no onnx package.

ONNX lets a tensor name another file for its values. No hash pins that file, and ONNX Runtime opens it wherever it lies
below the model's folder; so a file that names one is refused before ONNX Runtime sees it. Field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, the encoding that of
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

# Message by message, the fields that lead to tensors.
_INSIDE: Final[Mapping[str, Mapping[int, str]]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_EXTERNAL: Final = 1
_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)
# A network with 1,202 layers has 200,000.
MAX_FIELDS: Final = 5_000_000
_MAX_DEPTH: Final = 100  # as protocol buffers have it


class _Unreadable(Exception):
    """No protocol buffer, or a damaged one."""


def keeps_weights_outside(model: Path | bytes) -> bool:
    """Whether an ONNX model, or that in a file, names another file for a tensor's values.

    False also for what is no ONNX model at all, which ONNX Runtime refuses by itself. ``ValueError`` where it has more
    fields than any network.
    """
    if isinstance(model, bytes):
        return _finds_outside(model)
    if not model.stat().st_size:
        return False
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _finds_outside(data)


def _finds_outside(data: bytes | mmap.mmap) -> bool:
    try:
        return _Walk(data).finds_outside("Model", 0, len(data), _MAX_DEPTH)
    except _Unreadable:
        return False


class _Walk:
    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._fields_left = MAX_FIELDS

    def finds_outside(self, message: str, at: int, end: int, depth: int) -> bool:
        """Whether a tensor of the ``message`` from ``at`` to ``end``, or of one within it, is kept outside."""
        if depth == 0:
            raise _Unreadable
        inside = _INSIDE[message]
        for field, number, start, stop in self._fields(at, end):
            if message == "Tensor" and (field == _EXTERNAL_DATA or (field, number) == (_DATA_LOCATION, _EXTERNAL)):
                return True
            if field in inside and stop and self.finds_outside(inside[field], start, stop, depth - 1):
                return True
        return False

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Each field's number, its value if that is a number, and where its content is if it has one (else 0, 0)."""
        while at < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS} fields, as no network has")
            tag, at = self._varint(at, end)
            field, kind = tag >> 3, tag & 7
            if kind == _LENGTH:
                length, start = self._varint(at, end)
                at = start + length
                if at > end:
                    raise _Unreadable
                yield field, 0, start, at
            elif kind == _VARINT:
                value, at = self._varint(at, end)
                yield field, value, 0, 0
            elif kind in (_FIXED32, _FIXED64):
                at += 4 if kind == _FIXED32 else 8
            elif kind not in (_GROUP, _GROUP_END):  # of no ONNX file, and passed over by whoever reads one: so we go on
                raise _Unreadable

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The number at ``at``, and where the next thing begins."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise _Unreadable
