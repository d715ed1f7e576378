"""Answers as ASGI messages, with the least work for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.types import Send

from service.errors import ServiceError

_JSON: Final = (b"content-type", b"application/json")


@dataclass(slots=True)
class Answer:
    """A status, a body and headers, names in lower case."""

    status: int
    body: bytes
    headers: Iterable[tuple[bytes, bytes]]

    async def send(self, send: Send, request_id: str) -> None:
        headers = [
            *self.headers,
            (b"content-length", b"%d" % len(self.body)),
            (b"x-request-id", request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_answer(content: Any) -> Answer:
    return Answer(200, orjson.dumps(content), (_JSON,))


def error_answer(error: ServiceError, request_id: str, *headers: tuple[bytes, bytes], path: str = "") -> Answer:
    """The one place where errors become answers; below ``/v2`` in the form of the Open Inference Protocol."""
    retry = () if error.retry_after_s is None else ((b"retry-after", b"%d" % error.retry_after_s),)
    protocol = path == "/v2" or path.startswith("/v2/")
    body = {"error": error.message} if protocol else {**error.as_json(), "request_id": request_id}
    return Answer(error.status, orjson.dumps(body), (_JSON, *retry, *error.headers, *headers))
