"""Answers as ASGI messages, with the least work for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.types import Send

from service.errors import ServiceError

_JSON: Final = (b"content-type", b"application/json")
_WITHOUT_BODY: Final = (204, 304)  # of which HTTP forbids to tell a length (RFC 9110, 8.6)


@dataclass(slots=True)
class Answer:
    """A status, a body and headers, names in lower case."""

    status: int
    body: bytes
    headers: Iterable[tuple[bytes, bytes]]

    async def send(self, send: Send, request_id: str) -> None:
        headers = [*self.headers, (b"x-request-id", request_id.encode())]
        if self.status not in _WITHOUT_BODY:
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_answer(content: Any) -> Answer:
    """``content``, plain or of dataclasses and numpy arrays, as a whole answer."""
    return Answer(200, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), (_JSON,))


def binary_answer(content: bytes, media_type: str) -> Answer:
    return Answer(200, content, ((b"content-type", media_type.encode()),))


def error_answer(error: ServiceError, request_id: str, *headers: tuple[bytes, bytes]) -> Answer:
    """The one place where errors become answers."""
    retry = () if error.retry_after_s is None else ((b"retry-after", b"%d" % error.retry_after_s),)
    body = orjson.dumps({**error.as_json(), "request_id": request_id})
    return Answer(error.status, body, (_JSON, *retry, *headers))
