from __future__ import annotations

import socket

import pytest

from service.config import ConfigError
from service.process.ports import address, check_port, listen


def test_a_port_that_somebody_has() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"RESNET_GRPC_PORT={port}: .*in use") as caught:
            check_port("grpc", "127.0.0.1", port)
        assert "\n" not in str(caught.value)
    check_port("grpc", "127.0.0.1", port)
    check_port("grpc", "localhost", port)


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(ConfigError, match=r"RESNET_GRPC_HOST=192\.0\.2\.1"):
        check_port("grpc", "192.0.2.1", 8001)
    with pytest.raises(ConfigError, match=r"RESNET_METRICS_HOST=192\.0\.2\.1 and RESNET_METRICS_PORT=8001"):
        listen("metrics", "192.0.2.1", 8001)


def test_workers_share_what_one_of_them_listens_on() -> None:
    (first,) = listen("metrics", "127.0.0.1", 0)
    with first:
        port = first.getsockname()[1]
        (second,) = listen("metrics", "127.0.0.1", port)
        with second, pytest.raises(ConfigError, match=f"RESNET_METRICS_PORT={port}: .*in use"):
            check_port("metrics", "127.0.0.1", port)


def test_addresses() -> None:
    assert (address("0.0.0.0", 1), address("::", 2)) == ("0.0.0.0:1", "[::]:2")  # noqa: S104
