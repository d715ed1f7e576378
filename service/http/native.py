"""``/classify``: what BentoML's own clients call. It takes the way of ``/v1/classify``, not BentoML's.

BentoML would read the whole body before the gate is asked, and unpack forms and pickles that nobody needs here. So its
method is declared, for ``/schema.json`` and calls within the process, and requests for it are answered by this route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
from starlette.types import ASGIApp, Message

from service.http.routing import Route

PATH: Final = "/classify"
_SAME_AS: Final = "/v1/classify"


def routes(others: Sequence[Route]) -> list[Route]:
    """The routes of this module; ``others`` has the one that it stands for."""
    (classify,) = (route for route in others if route.path == _SAME_AS)
    operation = replace(
        classify.operation,
        summary="Classify images, for BentoML's clients",
        description=f"`{_SAME_AS}` under the name of a method: `bentoml.SyncHTTPClient(url).classify(data)`.",
    )
    return [Route(classify.method, PATH, classify.handler, operation, gated=True)]


async def classify(api: ASGIApp, image: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer of ``api`` to ``image`` within this process: the same gate, limits, errors and metrics."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "query_string": b"",
        "headers": [(b"content-length", b"%d" % len(image))],
    }
    inbox: list[Message] = [{"type": "http.request", "body": image, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if inbox:
            return inbox.pop()
        await asyncio.Event().wait()  # the caller stays until there is an answer
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await api(scope, receive, send)
    start, *bodies = sent
    return start["status"], orjson.loads(b"".join(message["body"] for message in bodies))
