"""A request's body: read within a bound, and taken apart into images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive

from service.errors import BadRequest, BodyTooLarge, TooManyImages
from service.http.disconnect import ClientGone

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# A malformed body is the client's affair; it must not fill the operator's log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


async def read_body(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    """The whole body; ``BodyTooLarge`` before more than ``max_bytes`` of it are held."""
    too_large = BodyTooLarge(f"the body is too large; at most {max_bytes} bytes are taken")
    if content_length(headers) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    held = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        held += len(chunk)
        if held > max_bytes:
            raise too_large
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def content_length(headers: Headers) -> int:
    """What the header says, 0 where it is absent."""
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest("the Content-Length header is no number")
    return int(text)


class _Images:
    """Collects the files of a multipart form, in memory: the body is bounded already."""

    def __init__(self, max_images: int) -> None:
        self.images: list[bytes] = []
        self.ended = False
        self._max_images = max_images
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._content = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._check,
            "on_part_data": lambda data, start, end: self._content.extend(data[start:end]),
            "on_part_end": lambda: self.images.append(bytes(self._content)),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = b""
        self._content = bytearray()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _check(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadRequest("the multipart body cannot be read: a part has no name")
        if b"filename" not in options:
            name = options[b"name"][:64].decode("utf-8", "replace")
            raise BadRequest(f"the multipart field {name!r} is no file; options go into the query")
        if len(self.images) == self._max_images:
            raise TooManyImages(f"too many images; at most {self._max_images} are taken in a request")

    def _end(self) -> None:
        self.ended = True


def is_multipart(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/")


def split_images(headers: Headers, body: bytes, max_images: int) -> list[bytes]:
    """The images in ``body``: all files of a multipart form, or the body itself."""
    if not body:
        raise BadRequest("the body is empty; send an image")
    if not is_multipart(headers):
        return [body]
    _, options = parse_options_header(headers["content-type"])
    if not options.get(b"boundary"):
        raise BadRequest("the multipart body cannot be read: it names no boundary")
    found = _Images(max_images)
    try:
        MultipartParser(options[b"boundary"], found.callbacks()).write(body)
    except FormParserError as error:
        raise BadRequest("the multipart body cannot be read: it is malformed") from error
    if not found.ended:
        raise BadRequest("the multipart body cannot be read: it breaks off before its closing boundary")
    if not found.images:
        raise BadRequest("the multipart body holds no file")
    return found.images
