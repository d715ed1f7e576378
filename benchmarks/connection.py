"""One keep-alive HTTP/1.1 connection that sends prepared bytes and reads no more of an answer than it must."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

NO_ANSWER: Final = 0
"""In the place of a status: the connection broke, or nothing came in time."""


def request_bytes(url: str, body: bytes, content_type: str = "application/octet-stream") -> bytes:
    """A whole ``POST`` of ``body``, ready to be written."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _is_whole(answer: bytes, head_end: int) -> bool:
    """Whether ``answer`` has all of its body; by its length or, of small JSON in chunks, by the last chunk."""
    head = answer[:head_end].lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    if found:
        return len(answer) >= head_end + 4 + int(rest.partition(b"\r\n")[0])
    if b"\r\ntransfer-encoding: chunked" not in head:
        raise ValueError(f"an answer of unknown length: {head!r}")
    return answer.endswith(b"\r\n0\r\n\r\n")


class Connection(asyncio.Protocol):
    """At most one request on its way; ``answered`` is told of each answer's status.

    retry_told -- whether the last answer said when to come back.
    """

    def __init__(self, answered: Callable[[Connection, int], None]) -> None:
        self._answered = answered
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None
        self.busy = False
        self.due = 0.0
        self.retry_told = False

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, request: bytes, due: float) -> None:
        """Send ``request``, which was due at ``due``."""
        self.busy, self.due = True, due
        self._transport.write(request)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or not _is_whole(buffer, end):
            self._buffer = buffer
            return
        self._buffer = b""
        self.retry_told = b"\r\nretry-after: " in buffer[:end].lower()
        if b"\r\nconnection: close" in buffer[:end].lower():
            self._transport.close()  # type: ignore[union-attr]
        self._settle(int(buffer[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self.retry_told = False
        if self.busy:
            self._settle(NO_ANSWER)

    def _settle(self, status: int) -> None:
        self.busy = False
        self._answered(self, status)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
