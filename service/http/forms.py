"""Multipart forms of files, taken apart as they come."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers

from service.errors import BadRequest, TooManyImages

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_BOUNDARY: Final = 70  # RFC 2046, 5.1.1
_MAX_PART_HEADERS: Final = 8
_MAX_PART_HEADER_BYTES: Final = 4096  # each; a file's name is in one

# A malformed body is the client's affair; it must not fill the operator's log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def is_multipart(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/")


def too_many(max_images: int) -> TooManyImages:
    return TooManyImages(f"too many images; at most {max_images} are taken in a request")


class FormFiles:
    """The files of a form; a subclass says what becomes of them.

    ``feed`` and ``check_ended`` raise ``BadRequest``, and ``TooManyImages`` for more than ``max_images``.
    """

    def __init__(self, headers: Headers, max_images: int) -> None:
        _, options = parse_options_header(headers["content-type"])
        if not options.get(b"boundary"):
            raise BadRequest("the multipart body cannot be read: it names no boundary")
        if len(options[b"boundary"]) > _MAX_BOUNDARY:
            raise BadRequest(
                f"the multipart body cannot be read: its boundary is longer than {_MAX_BOUNDARY} characters"
            )
        self._parser = MultipartParser(
            options[b"boundary"],
            self._callbacks(),
            max_header_count=_MAX_PART_HEADERS,
            max_header_size=_MAX_PART_HEADER_BYTES,
        )
        self._files = 0
        self._ended = False
        self._max_images = max_images
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._type = b""

    def begin(self, name: str) -> None:
        """A file begins; ``name`` is what its sender calls it."""

    def data(self, data: bytes) -> None:
        """More of the file."""
        raise NotImplementedError

    def end(self) -> None:
        """The file is whole."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """More of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BadRequest("the multipart body cannot be read: it is malformed") from error

    def check_ended(self) -> None:
        """The body is at its end: so must the form be."""
        if not self._ended:
            raise BadRequest("the multipart body cannot be read: it breaks off before its closing boundary")
        if not self._files:
            raise BadRequest("the multipart body holds no file")

    def drop(self) -> None:
        """No more comes: the parser, which holds this and is held by it, is let go."""
        del self._parser

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": lambda data, start, end: self.data(data[start:end]),
            "on_part_end": self.end,
            "on_end": self._end_form,
        }

    def _begin_part(self) -> None:
        self._disposition = b""
        self._type = b""

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        elif self._header.lower() == b"content-type":
            self._type = bytes(self._value).lower()
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadRequest("the multipart body cannot be read: a part has no name")
        # A file need not have a name (RFC 7578, 4.2); then its type tells it from an option.
        if b"filename" not in options and not self._type.startswith((b"image/", b"application/octet-stream")):
            name = options[b"name"][:64].decode("utf-8", "replace")
            raise BadRequest(f"the multipart field {name!r} is no file; options go into the query")
        if self._files == self._max_images:
            raise too_many(self._max_images)
        self._files += 1
        self.begin(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _end_form(self) -> None:
        self._ended = True
