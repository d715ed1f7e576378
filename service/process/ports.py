"""Ports besides the service's own: looked at before any worker takes them, then shared by all workers."""

from __future__ import annotations

import socket
from typing import Literal

from service.config import ConfigError, variable

Purpose = Literal["grpc", "metrics"]
"""Whose port it is: the start of its settings' names."""


def address(host: str, port: int) -> str:
    """As URLs and gRPC write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_port(purpose: Purpose, host: str, port: int) -> None:
    """``ConfigError`` where another program listens there, or ``host`` is no address of this machine.

    The workers share the port (SO_REUSEPORT); asked without that, the system tells whether somebody has it.
    """
    for listener in _bound(purpose, host, port, shared=False):
        listener.close()


def listen(purpose: Purpose, host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on all addresses of ``host``, as other workers' may too; or ``ConfigError``."""
    opened = _bound(purpose, host, port, shared=True)
    for listener in opened:
        listener.listen()
    return opened


def _bound(purpose: Purpose, host: str, port: int, *, shared: bool) -> list[socket.socket]:
    opened: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in dict.fromkeys(found):
            opened.append(listener := socket.socket(family, kind, protocol))
            # Connections that just ended do not count.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:  # as asyncio does: the IPv4 address has a socket of its own
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(where)
    except OSError as error:
        for listener in opened:
            listener.close()
        named = f"{variable(f'{purpose}_host')}={host} and {variable(f'{purpose}_port')}={port}"
        raise ConfigError(f"{named}: {error.strerror or error}") from error
    return opened
