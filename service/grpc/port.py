"""The gRPC port, looked at before any worker takes it."""

from __future__ import annotations

import socket

from service.config import ConfigError, variable


def address(host: str, port: int) -> str:
    """As gRPC writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_port(host: str, port: int) -> None:
    """``ConfigError`` where another program listens there, or ``host`` is no address of this machine.

    The workers share the port (SO_REUSEPORT); asked without that, the system tells whether somebody has it.
    """
    named = f"{variable('grpc_host')}={host} and {variable('grpc_port')}={port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # connections that just ended don't count
                listener.bind(where)
    except OSError as error:
        raise ConfigError(f"{named}: {error.strerror or error}") from error
