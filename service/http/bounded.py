"""A bound on bodies in front of another ASGI application, which may have none of its own."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, ServiceError
from service.http.answers import error_answer
from service.http.bodies import content_length
from service.http.request_ids import request_id

_GONE: Final[Message] = {"type": "http.disconnect"}


class BoundedBodies:
    """``app``, given at most ``max_bytes`` of a request's body.

    A body that is said to be larger is refused before ``app`` hears of the request. One that turns out to be larger is
    refused then; ``app`` is told that the client left, and what it still has to say goes nowhere.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = _Exchange(receive, send, self._max_bytes, request_id(headers))
        try:
            if content_length(headers) > self._max_bytes:
                raise BodyTooLarge(f"the body is too large; at most {self._max_bytes} bytes are taken")
        except ServiceError as error:
            await exchange.refuse(error)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.refused:
                raise


class _Exchange:
    """One request and its answer, between ``app`` and the server."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int, request_id: str) -> None:
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._request_id = request_id
        self._held = 0
        self._answering = False
        self.refused = False

    async def refuse(self, error: ServiceError) -> None:
        self.refused = True
        if not self._answering:
            await error_answer(error, self._request_id).send(self._send, self._request_id)

    async def receive(self) -> Message:
        if self.refused:
            return _GONE
        message = await self._receive()
        self._held += len(message.get("body", b""))
        if self._held > self._max_bytes:
            await self.refuse(BodyTooLarge(f"the body is too large; at most {self._max_bytes} bytes are taken"))
            return _GONE
        return message

    async def send(self, message: Message) -> None:
        if not self.refused:
            self._answering = True
            await self._send(message)
