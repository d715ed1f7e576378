"""A request's body: read within a bound, and taken apart into images."""

from __future__ import annotations

import binascii
from typing import Final

import orjson
from starlette.datastructures import Headers

from service.batching.gate import Ticket
from service.errors import BadRequest, BodyTooLarge, UnsupportedEncoding
from service.http.disconnect import ClientGone
from service.http.forms import FormFiles, too_many
from service.http.routing import Call


class BodyReader:
    """The body of ``call`` as it comes: at most ``max_bytes``, with no pause longer than ``idle_s``.

    The first of it makes the call one that waits for its client: if its time is over then, that is the client's doing.
    Raises ``BodyTooLarge`` and ``BadRequest`` for what the headers say.
    """

    __slots__ = ("_call", "_idle_s", "_max_bytes", "_taken", "announced", "more")

    def __init__(self, call: Call, max_bytes: int, idle_s: float) -> None:
        self._call = call
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._taken = 0
        self.more = True
        self.announced = content_length(call.headers)
        if self.announced > max_bytes:
            raise self._too_large()
        call.begin_reading(idle_s)

    async def read(self) -> bytes:
        """What came next, while there is ``more``; ``BodyTooLarge`` before more than ``max_bytes`` are given."""
        message = await self._call.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        self._taken += len(chunk)
        if self._taken > self._max_bytes:
            raise self._too_large()
        self.more = message.get("more_body", False)
        if self.more:
            self._call.begin_reading(self._idle_s)
        else:
            self._call.end_reading()
        return chunk

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is too large; at most {self._max_bytes} bytes are taken")


async def read_body(call: Call, max_bytes: int, idle_s: float, ticket: Ticket | None = None) -> bytes:
    """The whole body, held by ``ticket`` as it comes; raises as it and ``BodyReader`` do."""
    reader = BodyReader(call, max_bytes, idle_s)
    if ticket is not None:
        ticket.expect(reader.announced)
    chunks: list[bytes] = []
    while reader.more:
        chunk = await reader.read()
        if ticket is not None:
            ticket.hold(len(chunk))
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def check_encoding(headers: Headers) -> None:
    """``UnsupportedEncoding`` for a body that is compressed or otherwise encoded."""
    if "content-encoding" not in headers:
        return
    for encoding in headers.getlist("content-encoding"):
        if encoding.strip().lower() not in ("", "identity"):
            raise UnsupportedEncoding("the body has a Content-Encoding; send it as it is, without one")


def content_length(headers: Headers) -> int:
    """Bytes of the body, as its sender says; 0 where it says nothing."""
    text = headers.get("content-length", "0").strip(" \t")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest("the Content-Length header is no number")
    return int(text)


class _Images(FormFiles):
    """Collects the files in memory: the body is bounded already."""

    def __init__(self, headers: Headers, max_images: int) -> None:
        super().__init__(headers, max_images)
        self.images: list[bytes] = []
        self._content = bytearray()

    def data(self, data: bytes) -> None:
        self._content.extend(data)

    def end(self) -> None:
        self.images.append(bytes(self._content))
        self._content = bytearray()


# Commas that a body of n images may hold: n - 1, and room for mistakes that are worth a message of their own.
_SPARE_COMMAS: Final = 100


def is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def holds_many(headers: Headers) -> bool:
    """Whether the body is no image itself but holds some; taking it apart is no work for the event loop."""
    # Both in one, as it is asked of every request and each look at a header takes a microsecond.
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.startswith("multipart/")


def split_images(headers: Headers, body: bytes, max_images: int) -> list[bytes]:
    """The images in ``body``: all files of a multipart form, those of JSON, or the body itself."""
    if not body:
        raise BadRequest("the body is empty; send an image")
    if not holds_many(headers):
        return [body]
    return _from_json(body, max_images) if is_json(headers) else _from_form(headers, body, max_images)


def _from_form(headers: Headers, body: bytes, max_images: int) -> list[bytes]:
    found = _Images(headers, max_images)
    try:
        found.feed(body)
        found.check_ended()
        return found.images
    finally:
        found.drop()


def _from_json(body: bytes, max_images: int) -> list[bytes]:
    """The images of ``{"images": ["<base64>", ...]}``."""
    # Before it is parsed, as "[],[],[]" takes twenty times its length in memory, and a long string with one character
    # that is not ASCII five times; base64 has neither commas nor those.
    if not body.isascii():
        raise BadRequest("the JSON body is not all ASCII, as base64 is")
    if body.count(b",") >= 2 * max_images + _SPARE_COMMAS:
        raise too_many(max_images)
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise BadRequest(f"the JSON body cannot be read: it is malformed at {where}") from error
    texts = content.get("images") if isinstance(content, dict) else None
    if not isinstance(texts, list):
        raise BadRequest('the JSON body has no list "images"; send {"images": ["<base64>", ...]}')
    if len(content) > 1:
        unknown = next(name for name in content if name != "images")
        raise BadRequest(f"the JSON body has the unknown field {unknown[:64]!r}; options go into the query")
    if not texts:
        raise BadRequest("the JSON body holds no image")
    if len(texts) > max_images:
        raise too_many(max_images)
    return [from_base64(text, number) for number, text in enumerate(texts)]


def from_base64(text: object, number: int) -> bytes:
    """One image of RFC 4648's section 4, as strictly as it says: padded, nothing else between or behind."""
    if not isinstance(text, str):
        raise BadRequest(f"images[{number}] is no string")
    try:
        image = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one
        image = None
    # Python's strict mode takes "AAAA=" all the same.
    if image is None or len(text) != (len(image) + 2) // 3 * 4:
        prefixed = "; leave out what comes before the comma" if text.startswith("data:") else ""
        raise BadRequest(f"images[{number}] is no padded base64{prefixed}")
    if not image:
        raise BadRequest(f"images[{number}] is empty")
    return image
