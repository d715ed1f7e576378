"""No key is ever told: every output of a running service is searched for it, after requests with good and bad ones."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from service.grpc import open_inference_pb2 as pb
from service.grpc.methods import SERVICE
from tests.end_to_end.conftest import Server, free_port, picture, running, until
from tests.end_to_end.test_traces import Collector
from tests.end_to_end.test_traces import collector as collector

KEY, IN_FILE, WRONG = ("resnet_" + letter * 43 for letter in "aBc")
ADMIN = "admin-" + "d" * 40
SECRETS = [*(text for secret in (KEY, IN_FILE, WRONG, ADMIN) for text in (secret, secret[7:30]))]
"""Whole and in part: a piece is no less of a leak. A sender's own wrong key may be nearly right."""


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def all_ways(key: str) -> Iterator[dict[str, str]]:
    """Headers that hold ``key`` as they should, or as people get it wrong."""
    yield {"authorization": f"Bearer {key}"}
    yield {"authorization": key}
    yield {"authorization": f"Basic {key}"}
    yield {"x-api-key": key}
    yield {"x-api-key": f"Bearer {key}", "cookie": f"key={key}"}
    yield {"authorization": f"Bearer {key} {key}", "proxy-authorization": key}


def test_no_output_holds_a_key(tmp_path: Path, collector: Collector) -> None:
    (tmp_path / "keys").write_text(f"file sha256:{hashed(IN_FILE)}\n")
    (tmp_path / "admin").write_text(ADMIN)
    port = free_port()
    with running(
        RESNET_API_KEYS=f"app sha256:{hashed(KEY)} images_per_s=5",
        RESNET_API_KEYS_FILE=str(tmp_path / "keys"),
        RESNET_ADMIN_KEY_FILE=str(tmp_path / "admin"),
        RESNET_RUN_DIR=str(tmp_path / "run"),
        RESNET_LOG_REQUESTS="all",
        RESNET_GRPC_PORT=str(port),
        RESNET_TRACES="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="api-key=secret",
        OTEL_TRACES_SAMPLER="always_on",
        BENTOML_DEBUG="True",
    ) as server:
        told = "".join(over_http(server)) + "".join(over_grpc(port))
        (tmp_path / "keys").write_text(f"file {IN_FILE}\n")  # the key itself, where its hash should be
        until(lambda: "RESNET_API_KEYS_FILE" in "".join(printed(server)), "what is wrong with the file")
        workers = psutil.Process(server.process.pid).children(recursive=True)
        environments = [psutil.Process(worker.pid).environ() for worker in workers]
        until(lambda: len(collector.spans) > 50, "spans")
    log = "".join(printed(server))
    kept = "".join(path.read_bytes().decode("latin-1") for path in (tmp_path / "run").rglob("*") if path.is_file())
    outputs = {
        "answers": told,
        "log": log,
        "spans": str(collector.spans),
        "run folder": kept,
        "environment": str(environments),
    }
    assert log.count('"route":"/v1/classify"') > 50
    for where, text in outputs.items():
        assert not [secret for secret in SECRETS if secret in text], where


def printed(server: Server) -> list[str]:
    """What the service has printed by now."""
    while not server._lines.empty():
        if (line := server._lines.get()) is not None:
            server.log.append(line)
    return server.log


def over_http(server: Server) -> Iterator[str]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for key in (KEY, IN_FILE, WRONG, ADMIN):
            for headers in ({}, *all_ways(key)):
                yield said(client.post("/v1/classify", content=picture(1), headers=headers))
                yield said(client.post("/v1/classify", content=key.encode(), headers=headers))
                yield said(client.post("/v1/classify", json={"images": [], "key": key}, headers=headers))
                yield said(client.post(f"/v1/classify?top_k={key}", content=picture(1), headers=headers))
                yield said(client.post(f"/v1/jobs?include={'x' * 100}{key}", content=b"x", headers=headers))
                yield said(client.post("/v2/models/x/infer", content=f"{{{key}}}".encode(), headers=headers))
                yield said(client.post("/v2/repository/index", json={"key": key}, headers=headers))
                for path in ("/debug", "/v1/models", "/metrics", "/", "/readyz", "/nowhere", f"/{key}", "/schema.json"):
                    yield said(client.get(path, headers=headers))
        debug = client.get("/debug", headers={"authorization": f"Bearer {ADMIN}"})
        assert debug.json()["configuration"]["values"]["RESNET_API_KEYS"] == "set"
        assert debug.json()["slow_requests"]
        yield debug.text
        yield client.get("/metrics").text
        yield client.get("/openapi.json").text


def said(answer: httpx.Response) -> str:
    return str(list(answer.headers.items())) + answer.text


def over_grpc(port: int) -> Iterator[str]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ModelMetadata", response_deserializer=pb.ModelMetadataResponse.FromString
        )
        for key, name in itertools.product((KEY, WRONG), ("authorization", "x-api-key")):
            for value in (key, f"Bearer {key}"):
                try:
                    answer = call(b"", metadata=((name, value),), timeout=60)
                    yield str(answer)
                except grpc.RpcError as error:
                    yield f"{error.details()} {error.trailing_metadata()}"


def test_a_key_in_the_place_of_its_hash_is_not_printed() -> None:
    with pytest.raises(pytest.fail.Exception) as raised, running(RESNET_API_KEYS=f"app {KEY}"):
        pass
    assert "RESNET_API_KEYS: " in str(raised.value)
    assert not [secret for secret in SECRETS if secret in str(raised.value)]
