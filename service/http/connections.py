"""A worker's connections: how many there are, and how long those without a request are kept.

uvicorn ends an idle connection; it has no limit for one that sends half a request.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import resource
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import TooManyConnections
from service.http.answers import error_answer
from service.http.probes import PATHS
from service.http.request_ids import new_id
from service.settings.connections import ConnectionSettings

logger = logging.getLogger(__name__)

_SWEEP_S: Final = 0.5
_TAKING_S: Final = 60.0  # for a client that takes nothing of its answer
_HURRIED_S: Final = 5.0  # the same while the service stops, which waits for all answers to be taken
_REFUSED_LINGER_S: Final = 2.0  # for what comes behind a request that was refused
_SPARE: Final = 64  # connections beyond the bound that are heard, for the probes
_MAKE_ROOM: Final = 32  # connections that are closed at once, as looking for them costs time
_PROBES: Final = frozenset((*PATHS, "/metrics", "/v2/health/live", "/v2/health/ready"))
_OTHER_FILES: Final = 512  # beside connections: models, pipes, jobs


class Connection(Protocol):
    """What is asked of a connection."""

    since: float
    """When what it waits for began, on the event loop's clock."""

    @property
    def waits_for(self) -> str:
        """``""`` while a request is in work; or ``idle``, ``head``, ``rest`` (of an answered body), ``refused`` (for
        the client to read why), ``taking`` and ``closing`` (for it to take what was written)."""

    def time_out(self) -> None:
        """Its head is late: close, and say so where some of it came."""

    def close(self) -> None:
        """Close, once what was written is taken."""

    def abort(self) -> None:
        """Close now."""


class Connections:
    """Those of one worker.

    ``counted`` is told why one was ended or refused: a reason of resnet_rejected_total. ``stopping`` says whether the
    service does.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        counted: Callable[[str], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings = settings
        self.counted = counted
        self._stopping = stopping
        self._open: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._looked = 0.0
        self._limits_s = {
            "idle": settings.keep_alive_s,
            "head": settings.header_timeout_s,
            "rest": settings.body_idle_s,
            "taking": _TAKING_S,
            "closing": _TAKING_S,
            "refused": _REFUSED_LINGER_S,
        }

    @property
    def stopping(self) -> bool:
        """Whether the service ends."""
        return self._stopping()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open)

    def opened(self, connection: Connection) -> bool:
        """Whether there is room for it; where not, only probes are to be answered, or it was ended already."""
        self._open.add(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        beyond = len(self._open) - self.settings.max_connections
        if beyond <= 0 or self._make_room(connection):
            return True
        if beyond > _SPARE:
            self._end(connection)
        return False

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)

    def _end(self, connection: Connection) -> None:
        self.counted("connections")
        self._open.discard(connection)
        connection.abort()

    def _make_room(self, newest: Connection) -> bool:
        """Close some that wait for their client, the longest first: one that does nothing keeps nobody out."""
        now = asyncio.get_running_loop().time()
        if now - self._looked < _SWEEP_S / 10:
            return False
        waiting = [one for one in self._open if one.waits_for in ("idle", "head", "taking") and one is not newest]
        longest = heapq.nsmallest(_MAKE_ROOM, waiting, key=lambda one: one.since)
        for one in longest:
            self._end(one)
        if not longest:
            self._looked = now
        return bool(longest)

    def _limit_s(self, state: str) -> float:
        hurried = state in ("taking", "closing") and self.stopping
        return min(self._limits_s[state], _HURRIED_S) if hurried else self._limits_s[state]

    def _sweep(self) -> None:
        """End those that wait for too long."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._open):
            state = connection.waits_for
            if not state or now - connection.since <= self._limit_s(state):
                continue
            if state == "head":
                connection.time_out()
            elif state in ("taking", "closing"):
                connection.abort()
            else:
                connection.close()
        self._sweeping = loop.call_later(_SWEEP_S, self._sweep) if self._open else None


def only_probes(app: ASGIApp, counted: Callable[[str], None]) -> ASGIApp:
    """``app`` for probes; everything else gets 503, and its connection is closed."""

    async def crowded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in _PROBES:
            await app(scope, receive, send)
            return
        counted("connections")
        asked = new_id()
        error = TooManyConnections("too many connections are open; try again")
        await error_answer(error, asked, path=scope["path"]).send(send, asked)

    return crowded


def allow_files(connections: int, protocols: int = 1) -> None:
    """Raise this process's own limit of open files to what so many connections by each of ``protocols`` need, as far as
    it may be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = protocols * connections + _SPARE + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning(
            "at most %d files may be open, too few for RESNET_MAX_CONNECTIONS=%d; raise the limit (ulimit -n)",
            allowed,
            connections,
        )
