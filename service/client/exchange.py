"""One attempt's bounds and failures, shared by both clients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from service.client.calls import shown
from service.client.errors import BadAnswer, TimedOut, Unreachable

CONNECT_S: Final = 10.0
CONNECTIONS: Final = 100  # at once


def checked_url(url: str) -> httpx.URL:
    """``url`` parsed; ``ValueError`` unless it is one of http or https."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"this is no URL: {error}") from error  # without it, as it may hold a password
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{shown(parsed)!r} is no URL of the form http://host:port")
    return parsed


def timeouts(timeout_s: float) -> httpx.Timeout:
    """For each wait of an attempt; ``Gathered`` bounds the whole of it. Waiting for a free connection has no bound."""
    return httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s), pool=None)


@contextmanager
def translated(url: httpx.URL) -> Iterator[None]:
    """httpx's errors as this package's."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        reason = str(error) or "no answer to the connection"
        raise Unreachable(f"{shown(url)}: no connection: {reason}") from error
    except httpx.TimeoutException as error:
        raise TimedOut(f"{shown(url)}: no answer in time") from error
    except httpx.HTTPError as error:
        raise Unreachable(f"{shown(url)}: {str(error) or 'the connection broke'}") from error


class Gathered:
    """The body of an answer, within bounds of size and time."""

    def __init__(self, response: httpx.Response, max_bytes: int, deadline: float) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise BadAnswer("the answer is compressed, which was not asked for")
        self._url = response.request.url
        self._max_bytes = max_bytes
        self._deadline = deadline
        self._chunks: list[bytes] = []
        self._held = 0

    def add(self, chunk: bytes) -> None:
        self._held += len(chunk)
        if self._held > self._max_bytes:
            raise BadAnswer(f"the answer is longer than {self._max_bytes} bytes")
        if time.monotonic() > self._deadline:
            raise TimedOut(f"{shown(self._url)}: no whole answer in time")
        self._chunks.append(chunk)

    @property
    def body(self) -> bytes:
        return b"".join(self._chunks)
