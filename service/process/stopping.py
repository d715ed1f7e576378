"""How a worker ends after SIGTERM: readiness turns, then it takes no connection, then it answers what it took.

Between the first two it serves as always for a while, so that whoever sends requests here sees the readiness turn and
goes elsewhere: no request meets a closed port. docs/operations.md has the order with its settings.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from starlette.types import Message, Send

logger = logging.getLogger(__name__)

SLACK_S: Final = 10.0
"""What a worker has to end its threads, beside the drain and the longest request."""


class Stopping:
    """Comes before the HTTP server's own handler of SIGTERM, which closes the port at once.

    ``drain_s``      -- seconds that it serves on, with readiness false.
    ``limit_s``      -- seconds after SIGTERM at which the process ends, whatever is not answered by then.
    ``turn_unready`` -- says whether it was ready; where not, nobody sends, and nothing is waited for.
    """

    def __init__(self, drain_s: float, limit_s: float, turn_unready: Callable[[], bool]) -> None:
        self.began = False
        self.told = asyncio.Event()
        self._drain_s = drain_s
        self._limit_s = limit_s
        self._turn_unready = turn_unready
        self._closes: list[Callable[[], object]] = []
        self._closing: asyncio.TimerHandle | None = None

    def install(self) -> None:
        """On the event loop, in the main thread, when the server has installed its handler."""
        loop = asyncio.get_running_loop()
        servers: Any = signal.getsignal(signal.SIGTERM)
        if not callable(servers) or threading.current_thread() is not threading.main_thread():
            return  # nobody to come before: a server of another kind, or none

        def told(number: int, frame: FrameType | None) -> None:
            del number, frame
            loop.call_soon_threadsafe(self._begin, loop)

        self._closes.append(lambda: servers(signal.SIGTERM, None))
        signal.signal(signal.SIGTERM, told)

    def also(self, close: Callable[[], object]) -> None:
        """Have ``close`` called, on the event loop, when the HTTP server closes its port: for another port's server."""
        self._closes.append(close)

    def _close(self) -> None:
        for close in self._closes:
            close()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.began:  # told twice: somebody is in a hurry
            if self._closing is not None:
                self._closing.cancel()
            self._close()
            return
        self.began = True
        self.told.set()
        drain_s = self._drain_s if self._turn_unready() else 0.0
        watch = threading.Timer(self._limit_s, self._give_up)
        watch.daemon = True
        watch.start()
        logger.info("stopping: not ready any more, and taking no connection in %g s", drain_s)
        self._closing = loop.call_later(drain_s, self._close)

    def _give_up(self) -> None:
        """In a thread of its own, as the event loop may be what hangs."""
        logger.error("stopping: not all was answered within %g s (RESNET_STOP_S); ended", self._limit_s)
        os._exit(1)

    def closing(self, send: Send) -> Send:
        """``send``, with ``Connection: close`` on what it answers: the next request shall find another replica."""

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        return send_and_close
