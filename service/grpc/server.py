"""The gRPC server in a worker: started, stopped; the port is all workers'."""

from __future__ import annotations

import grpc

from service.config import ConfigError
from service.grpc.methods import Methods
from service.ports import address
from service.runtime import Runtime
from service.settings import ServerSettings
from service.tls import grpc_credentials


class GrpcServer:
    """Takes calls from ``start`` to ``stop``. Lives on the event loop that it is made on."""

    def __init__(self, runtime: Runtime) -> None:
        limits = runtime.settings.limits
        self._credentials = grpc_credentials(runtime.settings.access)
        self._grace_s = limits.deadline_s  # no call takes longer
        self._methods = Methods(runtime)
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", limits.max_body_bytes),  # unpacked, where it comes packed
                ("grpc.max_send_message_length", -1),
            ]
        )
        self._server.add_generic_rpc_handlers((self._methods.handlers(),))

    async def start(self, settings: ServerSettings) -> int:
        """Listen on the port of ``settings``, which is returned; ``ConfigError`` where that cannot be."""
        where = address(settings.grpc_host, settings.grpc_port or 0)
        try:
            if self._credentials is None:
                port: int = self._server.add_insecure_port(where)
            else:
                port = self._server.add_secure_port(where, self._credentials)
        except RuntimeError as error:
            raise ConfigError(f"gRPC cannot listen on {where}; another program may") from error
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Take no new call, and return when those that were taken are answered."""
        self._methods.stop_streams()
        await self._server.stop(self._grace_s)
