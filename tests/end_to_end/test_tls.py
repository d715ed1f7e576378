"""TLS on all ports, over real sockets, with certificates made here."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
import trustme

from service.grpc import open_inference_pb2 as pb
from service.grpc.methods import SERVICE
from tests.end_to_end.conftest import Reference, Server, free_port, picture, running

HOST = "127.0.0.1"


class Party:
    """A certificate and its key in ``folder``, issued by ``ca`` for this machine."""

    def __init__(self, ca: trustme.CA, folder: Path, name: str) -> None:
        issued = ca.issue_cert(HOST, "localhost", common_name=name)
        self.cert, self.key = folder / f"{name}.pem", folder / f"{name}-key.pem"
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())


class Tls:
    """One server's, its root, and clients: one that it knows, one of another root."""

    def __init__(self, folder: Path) -> None:
        ca, other = trustme.CA(), trustme.CA()
        self.ca = folder / "ca.pem"
        ca.cert_pem.write_to_path(str(self.ca))
        self.server, self.client = Party(ca, folder, "server"), Party(ca, folder, "client")
        self.stranger = Party(other, folder, "stranger")

    def settings(self) -> dict[str, str]:
        return {"RESNET_TLS_CERT": str(self.server.cert), "RESNET_TLS_KEY": str(self.server.key)}

    def context(self, client: Party | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"))


class Ports:
    """A service with all its ports."""

    def __init__(self, server: Server, grpc_port: int, metrics_port: int) -> None:
        self.http = int(server.url.rpartition(":")[2])
        self.grpc = grpc_port
        self.metrics = metrics_port

    def __iter__(self) -> Iterator[int]:
        return iter((self.http, self.metrics, self.grpc))


@pytest.fixture(scope="module")
def ports(tls: Tls) -> Iterator[Ports]:
    """Where clients' certificates are asked for."""
    grpc_port, metrics_port = free_port(), free_port()
    with running(
        RESNET_PRECISION="fp32",
        RESNET_GRPC_PORT=str(grpc_port),
        RESNET_METRICS_PORT=str(metrics_port),
        RESNET_TLS_CLIENT_CA=str(tls.ca),
        **tls.settings(),
    ) as server:
        yield Ports(server, grpc_port, metrics_port)


def ready(tls: Tls, port: int, client: Party | None) -> bool:
    """What gRPC's ServerReady answers."""
    pair = {} if client is None else {
        "private_key": client.key.read_bytes(), "certificate_chain": client.cert.read_bytes()
    }  # fmt: skip
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), **pair)
    with grpc.secure_channel(f"{HOST}:{port}", credentials) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ServerReady",
            request_serializer=pb.ServerReadyRequest.SerializeToString,
            response_deserializer=pb.ServerReadyResponse.FromString,
        )
        return bool(call(pb.ServerReadyRequest(), timeout=30).ready)


def test_known_clients_are_answered_on_every_port(tls: Tls, ports: Ports, reference: Reference) -> None:
    with httpx.Client(verify=tls.context(tls.client)) as client:
        answer = client.post(f"https://{HOST}:{ports.http}/v1/classify", content=(data := picture(3)))
        reference.check(answer.json()["results"][0]["predictions"], data)
        assert "resnet_workers_ready 1.0" in client.get(f"https://{HOST}:{ports.metrics}/metrics").text
    assert ready(tls, ports.grpc, tls.client)


@pytest.mark.parametrize("who", ["nobody", "stranger"])
def test_others_are_not(tls: Tls, ports: Ports, who: str) -> None:
    party = tls.stranger if who == "stranger" else None
    with httpx.Client(verify=tls.context(party)) as client:
        for port, path in ((ports.http, "/livez"), (ports.metrics, "/metrics")):
            with pytest.raises(httpx.TransportError):
                client.get(f"https://{HOST}:{port}{path}")
    with pytest.raises(grpc.RpcError) as raised:
        ready(tls, ports.grpc, party)
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


def test_nothing_is_answered_in_plain_text(ports: Ports) -> None:
    for port in ports:
        with socket.create_connection((HOST, port), timeout=30) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            try:
                assert b"HTTP/" not in connection.recv(4096)
            except ConnectionResetError:
                continue


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # for naming a version that nobody should speak
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_versions_of_the_protocol(tls: Tls, ports: Ports, version: str) -> None:
    """1.2 or later; with 1.2, only keys that are good for one connection and ciphers that authenticate."""
    context = tls.context(tls.client)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    for port in ports:
        if port == ports.grpc:
            context.set_alpn_protocols(["h2"])
        with socket.create_connection((HOST, port), timeout=30) as raw:
            if version in ("TLSv1", "TLSv1_1"):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    context.wrap_socket(raw, server_hostname=HOST)
                continue
            with context.wrap_socket(raw, server_hostname=HOST) as connection:
                assert connection.version() == version.replace("_", ".")
                name, _, _ = connection.cipher() or ("", "", 0)
                assert "GCM" in name or "CHACHA20" in name
                assert version == "TLSv1_3" or name.startswith("ECDHE")


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "aNULL"])
def test_old_ciphers_are_not_spoken(tls: Tls, ports: Ports, ciphers: str) -> None:
    context = tls.context(tls.client)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    for port in ports:
        with socket.create_connection((HOST, port), timeout=30) as raw, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(raw, server_hostname=HOST)


def test_a_wrong_file_stops_the_start(tls: Tls, tmp_path: Path) -> None:
    from service.config import ConfigError, Settings
    from service.process.tls import check_tls

    def check(**changed: Path) -> None:
        given = tls.settings() | {"RESNET_TLS_CLIENT_CA": str(tls.ca)}
        given |= {f"RESNET_TLS_{name.upper()}": str(path) for name, path in changed.items()}
        check_tls(Settings.from_env(given).access)

    check()
    (broken := tmp_path / "broken").write_text("no certificate")
    for changed in (
        {"cert": tmp_path / "none"},
        {"cert": broken},
        {"key": broken},
        {"key": tls.client.key},
        {"client_ca": broken},
        {"client_ca": tmp_path / "none"},
    ):
        with pytest.raises(ConfigError, match="RESNET_TLS_"):
            check(**changed)
