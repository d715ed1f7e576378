"""The gRPC server in a worker: started, kept up, stopped; the port is all workers'.

A request whose path is no UTF-8 ends ``grpc.aio``'s server, of every version up to 1.85 at least: its main loop decodes
the path, and what that raises is caught by nobody. The calls under way are finished, one that comes in that moment is
cancelled, and the port is closed. So the server is looked at, and another takes its place.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import grpc

from service.config import ConfigError
from service.grpc.methods import Methods
from service.process.ports import address
from service.process.tls import grpc_credentials
from service.runtime import Runtime
from service.settings import ServerSettings

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.05
_SPARE_CALLS: Final = 100  # of a connection, beyond what the queue takes: for probes, and to be told that it is full

# It writes what clients send, where that is no UTF-8, and so perhaps a key. What ends it is told below.
logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)


class GrpcServer:
    """Takes calls from ``start`` to ``stop``. Lives on the event loop that it is made on."""

    def __init__(self, runtime: Runtime) -> None:
        limits, connections = runtime.settings.limits, runtime.settings.connections
        self._credentials = grpc_credentials(runtime.settings.access)
        self._grace_s = limits.deadline_s  # no call takes longer
        self._methods = Methods(runtime)
        self._options = [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", limits.max_body_bytes),  # unpacked, where it comes packed
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", limits.max_queue + _SPARE_CALLS),
            ("grpc.max_allowed_incoming_connections", connections.max_connections),
            ("grpc.max_connection_idle_ms", _ms(connections.keep_alive_s)),
            ("grpc.server_handshake_timeout_ms", _ms(connections.header_timeout_s)),
        ]
        self._server: Any = None
        self.port = 0
        self.restarts = 0
        self._keeping: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Task[None] | None = None

    async def start(self, settings: ServerSettings) -> int:
        """Listen on the port of ``settings``, which is returned; ``ConfigError`` where that cannot be."""
        where = address(settings.grpc_host, settings.grpc_port or 0)
        try:
            port = await self._begin(where)
        except RuntimeError as error:
            raise ConfigError(f"gRPC cannot listen on {where}; another program may") from error
        self._keeping = asyncio.create_task(self._keep_up(address(settings.grpc_host, port)))
        self.port = port
        return port

    def close(self) -> asyncio.Task[None]:
        """Take no new call; what is returned is done when those that were taken are answered."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        return self._stopping

    async def stop(self) -> None:
        """Take no new call, and return when those that were taken are answered."""
        await self.close()

    async def _stop(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        self._methods.stop_streams()
        if self._server is not None:
            await self._server.stop(self._grace_s)
        await asyncio.gather(*self._ending)

    async def _begin(self, where: str) -> int:
        """A new server, at ``where``; ``RuntimeError`` where that cannot be had."""
        server = grpc.aio.server(options=self._options)
        server.add_generic_rpc_handlers((self._methods.handlers(),))
        if self._credentials is None:
            port: int = server.add_insecure_port(where)
        else:
            port = server.add_secure_port(where, self._credentials)
        await server.start()
        self._server = server
        return port

    async def _keep_up(self, where: str) -> None:
        """Put another server in the place of one that ended by itself."""
        while True:
            try:
                await self._server.wait_for_termination(_LOOK_S)  # raises what ended it
            except Exception:
                logger.exception("gRPC: its server ended and is started anew")
                ending = asyncio.create_task(self._server.stop(self._grace_s))  # when its calls are answered
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
                await self._begin_again(where)

    async def _begin_again(self, where: str) -> None:
        while True:
            try:
                await self._begin(where)
            except RuntimeError as error:
                logger.error("gRPC cannot listen on %s: %s; it is tried again", where, error)
                await asyncio.sleep(1)
            else:
                self.restarts += 1
                return


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))
