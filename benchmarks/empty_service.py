"""A BentoML service as trimmed as ours, whose mounted application reads the body and answers at once.

What it answers a second is what BentoML, uvicorn and the sockets allow; a service of images cannot pass it.
"""

from __future__ import annotations

from typing import Any

import bentoml

_BODY = b'{"results":[]}'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())],
}


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    await send(_START)
    await send({"type": "http.response.body", "body": _BODY})


@bentoml.service(
    workers=1, metrics={"enabled": False}, tracing={"excluded_urls": ".*"}, logging={"access": {"enabled": False}}
)
@bentoml.asgi_app(_answer)
class EmptyService:
    """Answers every POST with the same few bytes."""
