"""What the parent of the workers does beside BentoML, whose process manager (circus) it is.

As BentoML sets it up, a dead worker is found by a look every ten seconds, not replaced at all in a container, and at
the end connections still come in to the parent's socket, where nobody takes them. So here: a look as soon as a worker
dies, replacement everywhere, and a socket that the parent gives up first, so that it closes with the last worker's.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

logger = logging.getLogger(__name__)

HURRY_EVERY_S: Final = 10.0
"""At most so often a dead worker is replaced at once; others wait for circus's next look, ten seconds at most.

So a worker that dies as soon as it starts is not started again and again without a pause.
"""

_TOGETHER_S: Final = 0.05
"""Workers that die together are found by one look."""

_AGAIN_S: Final = 0.2


def supervise() -> None:
    """Once circus runs in this process, see to the workers; called before that, in the parent's main thread."""
    if threading.current_thread() is not threading.main_thread():
        return  # a server within another program, which has its own signals
    from tornado.ioloop import IOLoop  # circus's event loop; workers do not load it

    loop = IOLoop.current()
    loop.add_callback(_attach, loop)


def _attach(loop: Any) -> None:
    try:
        Supervisor(signal.getsignal(signal.SIGTERM), loop).attach()
    except AttributeError:
        logger.warning("workers are supervised as BentoML does it: its process manager is not the one that is known")


class Supervisor:
    """``handler`` is circus's of SIGTERM, which leads to the workers and their socket; ``loop`` is tornado's."""

    def __init__(self, handler: Any, loop: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._circus_stops = handler
        self._arbiter = handler.__self__.controller.arbiter
        self._loop = loop
        self._clock = clock
        self._looked_s: float | None = None
        self._looking = False

    def attach(self) -> None:
        """Replace workers everywhere and at once, and come before circus's handler of SIGTERM."""
        for watcher in self._arbiter.watchers:
            watcher.respawn = True

        signal.signal(signal.SIGTERM, self._told_to_stop)
        self._loop.asyncio_loop.add_signal_handler(signal.SIGCHLD, self.worker_died)

    def _told_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._circus_stops(number, frame)
        self._loop.add_callback_from_signal(self._stop)

    def worker_died(self) -> None:
        """Have it replaced, at once where that was not done a moment ago."""
        if self._looking or self._arbiter._stopping:
            return
        now = self._clock()
        if self._looked_s is None or now - self._looked_s >= HURRY_EVERY_S:
            self._looking = True
            self._looked_s = now
            self._loop.call_later(_TOGETHER_S, self._look)

    async def _look(self) -> None:
        from circus.exc import ConflictError

        self._looking = False
        before = self._pids()
        with contextlib.suppress(ConflictError):  # a look is under way, and finds the same
            await self._arbiter.manage_watchers()
        if died := before - self._pids():
            logger.warning("worker %s died; another is started", ", ".join(map(str, sorted(died))))

    def _pids(self) -> set[int]:
        return {pid for watcher in self._arbiter.watchers for pid in watcher.processes}

    def _stop(self) -> None:
        """Once the workers were told, leave the listening socket to them."""
        if self._arbiter._stopping:
            self._arbiter.sockets.close_all()
        else:  # circus was at something else, and drops what it is told meanwhile
            self._loop.call_later(_AGAIN_S, self._told_to_stop, signal.SIGTERM, None)
