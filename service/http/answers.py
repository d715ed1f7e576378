"""Answers as ASGI messages, with the least work for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import orjson
from starlette.types import Receive, Send

from service.errors import ServiceError
from service.http.disconnect import ClientGone, UntilDisconnect

_JSON: Final = (b"content-type", b"application/json")
PRIVATE: Final = (
    # Answers are of one client's images and jobs: nobody keeps them, and no page of others takes them in as its own.
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
_WITHOUT_BODY: Final = (204, 304)  # of which HTTP forbids to tell a length (RFC 9110, 8.6)
_CHUNK: Final = 2**18  # bytes of a file read at once
_PATIENCE_S: Final = 60.0  # with a client that takes nothing


@dataclass(slots=True)
class Answer:
    """A status, a body and headers, names in lower case; an error's ``code``.

    policy -- headers that say what browsers and caches may do with it.
    """

    status: int
    body: bytes
    headers: Iterable[tuple[bytes, bytes]]
    code: str = field(default="", kw_only=True)
    policy: tuple[tuple[bytes, bytes], ...] = field(default=PRIVATE, kw_only=True)

    async def send(self, send: Send, request_id: str) -> None:
        await self._start(send, request_id, len(self.body))
        await send({"type": "http.response.body", "body": self.body})

    async def _start(self, send: Send, request_id: str, length: int) -> None:
        headers = [*self.headers, *self.policy, (b"x-request-id", request_id.encode())]
        if self.status not in _WITHOUT_BODY:
            headers.append((b"content-length", b"%d" % length))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})


@dataclass(slots=True)
class FileAnswer(Answer):
    """The first ``length`` bytes of ``file``, read while they are sent; ``body`` is not.

    Ends early where the client leaves, or takes nothing for a minute.
    """

    file: BinaryIO
    length: int
    receive: Receive
    head: bool

    async def send(self, send: Send, request_id: str) -> None:
        try:
            with contextlib.suppress(ClientGone, TimeoutError):
                async with UntilDisconnect(self.receive):
                    async with asyncio.timeout(_PATIENCE_S):
                        await self._start(send, request_id, self.length)
                    await self._send_file(send)
        finally:
            await asyncio.to_thread(self.file.close)

    async def _send_file(self, send: Send) -> None:
        left = 0 if self.head else self.length
        while left:
            chunk = await asyncio.to_thread(self.file.read, min(_CHUNK, left))
            if not chunk:
                raise OSError("a file became shorter while it was sent")
            left -= len(chunk)
            async with asyncio.timeout(_PATIENCE_S):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def json_answer(content: Any) -> Answer:
    """``content``, plain or of dataclasses and numpy arrays, as a whole answer."""
    return Answer(200, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), (_JSON,))


def binary_answer(content: bytes, media_type: str) -> Answer:
    return Answer(200, content, ((b"content-type", media_type.encode()),))


def error_answer(error: ServiceError, request_id: str, *headers: tuple[bytes, bytes], path: str = "") -> Answer:
    """The one place where errors become answers; below ``/v2`` in the form of the Open Inference Protocol."""
    retry = () if error.retry_after_s is None else ((b"retry-after", b"%d" % error.retry_after_s),)
    protocol = path == "/v2" or path.startswith("/v2/")
    body = {"error": error.message} if protocol else {**error.as_json(), "request_id": request_id}
    return Answer(error.status, orjson.dumps(body), (_JSON, *retry, *error.headers, *headers), code=error.code)
