"""``/metrics`` on a port of its own, which need not be where clients come: RESNET_METRICS_PORT.

Every worker listens there; the system gives a connection to any of them, and each shows all workers' metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from service.errors import MethodNotAllowed, ServiceError, UnknownRoute
from service.http.answers import Answer, error_answer
from service.http.connections import Connections
from service.http.page import metrics_answer
from service.http.protocol import guarded
from service.http.request_ids import request_id
from service.metrics import Metrics
from service.process.ports import listen
from service.process.tls import uvicorn_options
from service.settings import AccessSettings, ConnectionSettings, ServerSettings

_PATH: Final = "/metrics"
_MOST_CONNECTIONS: Final = 64  # each may ask for a page, which takes a thread
_GRACE_S: Final = 5


class _Server(uvicorn.Server):
    """A uvicorn server beside another one, to which it leaves the process's signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class MetricsServer:
    """Takes requests from ``start`` to ``stop``, on the event loop that it is started on."""

    def __init__(self, metrics: Metrics, access: AccessSettings) -> None:
        self._metrics = metrics
        self._server = _Server(
            uvicorn.Config(
                self._answer,
                http=guarded(Connections(ConnectionSettings(max_connections=_MOST_CONNECTIONS), metrics.rejected)),
                interface="asgi3",
                lifespan="off",
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
                **uvicorn_options(access),
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self, settings: ServerSettings) -> int:
        """Listen on the metrics' port of ``settings``, which is returned; ``ConfigError`` where that cannot be."""
        sockets = listen("metrics", settings.metrics_host, settings.metrics_port or 0)
        self._serving = asyncio.create_task(self._server.serve(sockets))
        port: int = sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Answer what was asked, and close the port."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive  # no body is read
        if scope["type"] != "http":
            return
        asked = request_id(Headers(scope=scope))
        try:
            answer = await self._page(scope["method"], scope["path"])
        except ServiceError as error:
            allow = ((b"allow", b"GET, HEAD"),) if isinstance(error, MethodNotAllowed) else ()
            answer = error_answer(error, asked, *allow)
        await answer.send(send, asked)

    async def _page(self, method: str, path: str) -> Answer:
        if path != _PATH:
            raise UnknownRoute(f"nothing is here; there is {_PATH}")
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{_PATH} takes GET, HEAD")
        return await metrics_answer(self._metrics)
