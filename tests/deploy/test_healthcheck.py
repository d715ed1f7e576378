"""What the images' HEALTHCHECK says of a service, with and without TLS; in the container: tests/container."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

SCRIPT = Path(__file__).parents[2] / "docker" / "healthcheck.py"


@contextmanager
def service(status: int, context: ssl.SSLContext | None = None) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # handshakes that fail are the test's

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def check(port: int, **environment: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
    return subprocess.run(
        [sys.executable, "-IS", SCRIPT], env=kept | {"BENTOML_PORT": str(port), **environment}, timeout=60, check=False
    ).returncode


@pytest.mark.parametrize(("status", "said"), [(200, 0), (503, 1)])
def test_plain(status: int, said: int) -> None:
    with service(status) as port:
        assert check(port) == said


def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        assert check(held.getsockname()[1]) == 1


def a_certificate(folder: Path) -> tuple[trustme.CA, ssl.SSLContext, dict[str, str]]:
    """Who issued it, a server's context with it, and the settings that name its files."""
    ca = trustme.CA()
    issued = ca.issue_cert("example.com")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(context)
    return ca, context, {"RESNET_TLS_CERT": str(folder / "cert.pem"), "RESNET_TLS_KEY": str(folder / "key.pem")}


def ask_clients(context: ssl.SSLContext, ca: trustme.CA) -> None:
    """Let in those with a certificate of ``ca`` alone."""
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED


@pytest.mark.parametrize("asks_clients", [False, True])
@pytest.mark.parametrize(("status", "said"), [(200, 0), (503, 1)])
def test_tls(tmp_path: Path, status: int, said: int, asks_clients: bool) -> None:
    ca, context, names = a_certificate(tmp_path)
    if asks_clients:
        ask_clients(context, ca)
        names["RESNET_TLS_CLIENT_CA"] = "clients.pem"
    with service(status, context) as port:
        assert check(port, **names) == said


def test_clients_of_another_authority(tmp_path: Path) -> None:
    """Then all that is known is that it listens."""
    _, context, names = a_certificate(tmp_path)
    ask_clients(context, trustme.CA())
    with service(200, context) as port:
        assert check(port, **names, RESNET_TLS_CLIENT_CA="clients.pem") == 0
        assert check(port, **names) == 1
