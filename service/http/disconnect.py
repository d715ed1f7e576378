"""Stops the work for a client that has left."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

from starlette.types import Receive

# Listening costs a task; most answers are sooner, and a client that leaves is noticed soon enough.
_LISTEN_AFTER_S: Final = 0.02


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


class UntilDisconnect:
    """``async with UntilDisconnect(receive):`` cancels the block where the client leaves, and raises ``ClientGone``.

    Works as ``asyncio.timeout`` does: a cancellation from elsewhere passes as it is.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._listener: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("UntilDisconnect needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(_LISTEN_AFTER_S, self._listen)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None  # it holds this, by its frame: together they would wait for the garbage collector
        if self._gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientGone from error

    def _listen(self) -> None:
        self._listener = asyncio.create_task(self._disconnected())

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
