"""How much a message will cost to read, found from its encoding before it is read.

A field of two bytes may become an object of a hundred, and all of them are read while nothing else runs; so messages
with more fields than a request has are refused first (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from service.errors import BadRequest

_CHECK_FROM_BYTES: Final = 2**16  # less than this cannot become much
_MAX_NUMBERS_BYTES: Final = 2**21

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
Fields = Mapping[int, Any]
"""A message's fields by their numbers, as its descriptor has them."""

_TEXT: Final = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def check_cost(data: bytes, kind: type[Message], max_fields: int) -> None:
    """``BadRequest`` where ``data`` is no message of ``kind``, or has too many fields or numbers one by one."""
    if len(data) >= _CHECK_FROM_BYTES:
        _Walk(data, max_fields).through(kind.DESCRIPTOR.fields_by_number, 0, len(data))


class _Walk:
    def __init__(self, data: bytes, max_fields: int) -> None:
        self._data = data
        self._fields_left = max_fields

    def through(self, fields: Fields, at: int, end: int) -> None:
        while at < end:
            if self._fields_left == 0:
                raise BadRequest("the request has too many fields; send tensors in raw_input_contents")
            self._fields_left -= 1
            tag, at = self._varint(at, end)
            kind = tag & 7
            if kind == _VARINT:
                _, at = self._varint(at, end)
            elif kind in (_FIXED32, _FIXED64):
                at += 4 if kind == _FIXED32 else 8
            elif kind == _LENGTH:
                length, at = self._varint(at, end)
                if at + length > end:
                    raise malformed()
                self._into(fields.get(tag >> 3), at, at + length)
                at += length
            else:
                raise malformed()
        if at > end:
            raise malformed()

    def _into(self, field: Any | None, at: int, end: int) -> None:
        if field is None or field.type in _TEXT:
            return
        if field.message_type is not None:
            self.through(field.message_type.fields_by_number, at, end)
        elif end - at > _MAX_NUMBERS_BYTES:
            raise BadRequest("the request has too many numbers one by one; send tensors in raw_input_contents")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The number at ``at``, and where the next thing begins."""
        value = 0
        for shift in range(0, 70, 7):
            if at == end:
                break
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise malformed()


def malformed() -> BadRequest:
    return BadRequest("the request is no message of this method")
