"""A request's body: read within a bound, and taken apart into images."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive

from service.errors import BadRequest, BodyTooLarge, TooManyImages

# A malformed body is the client's affair; it must not fill the operator's log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


async def read_body(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    """The whole body; ``BodyTooLarge`` before more than ``max_bytes`` of it are held."""
    too_large = BodyTooLarge(f"the body is too large; at most {max_bytes} bytes are taken")
    if _content_length(headers) > max_bytes:
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


def _content_length(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest("the Content-Length header is no number")
    return int(text)


class _InMemoryParser(MultiPartParser):
    """Starlette's parser without its temporary files: the body is in memory and bounded already."""

    def __init__(self, headers: Headers, body: bytes, max_files: int) -> None:
        super().__init__(headers, _once(body), max_files=max_files, max_fields=max_files)
        self.spool_max_size = len(body) + 1
        self._ended = False

    def on_end(self) -> None:
        self._ended = True

    async def parse(self) -> FormData:
        form = await super().parse()
        if not self._ended:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it breaks off before its closing boundary")
        return form


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def split_images(headers: Headers, body: bytes, max_images: int) -> list[bytes]:
    """The images in ``body``: all files of a multipart form, or the body itself."""
    if not body:
        raise BadRequest("the body is empty; send an image")
    if not headers.get("content-type", "").lower().startswith("multipart/"):
        return [body]
    try:
        form = await _InMemoryParser(headers, body, max_images).parse()
    except (MultiPartException, KeyError) as error:
        if "Too many files" in str(error):
            raise TooManyImages(f"too many images; at most {max_images} are taken in a request") from error
        raise BadRequest(f"the multipart body cannot be read: {_reason(error)}") from error
    try:
        images = []
        for name, part in form.multi_items():
            if not isinstance(part, UploadFile):
                raise BadRequest(f"the multipart field {name[:64]!r} is no file; options go into the query")
            images.append(await part.read())
    finally:
        await form.close()
    if not images:
        raise BadRequest("the multipart body holds no file")
    return images


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, MultiPartException) else "it names no boundary"
