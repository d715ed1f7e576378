"""The peers, and what this service promises beside each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.peers.peer import Peer, base64_json, first_key, multipart, raw

_APPS: Final = "benchmarks.peers.apps"
_UVICORN: Final = ("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning")

FASTAPI: Final = Peer(
    "FastAPI, ONNX Runtime CPU fp32", "onnx", (*_UVICORN, f"{_APPS}.fastapi_onnx:app"),
    "/classify", "/ready", multipart("file"),
)  # fmt: skip
FASTAPI_OWN: Final = Peer(
    "FastAPI, our provider, precision and file", "onnx", (*_UVICORN, f"{_APPS}.fastapi_own:app"),
    "/classify", "/ready", multipart("file"),
)  # fmt: skip
BENTOML: Final = Peer(
    "BentoML, adaptive batching", "onnx",
    ("-m", "bentoml", "serve", f"{_APPS}.bentoml_batching:Wrapper", "--host", "127.0.0.1", "--port", "{port}"),
    "/classify", "/readyz", multipart("image"), settings={"BENTOML_DO_NOT_TRACK": "True"},
)  # fmt: skip
LITSERVE: Final = Peer(
    "LitServe, PyTorch fp32, batching", "torch", ("-m", f"{_APPS}.litserve_torch", "{port}"),
    "/predict", "/health", base64_json("image_data"), needs_checkpoint=True,
)  # fmt: skip
TORCHSERVE: Final = Peer(
    "TorchServe, PyTorch fp32, batching", "torch", ("-m", f"{_APPS}.torchserve.start", "{port}"),
    "/predictions/resnet50", "/ping", raw, first_key, needs_checkpoint=True, needs_program="java",
)  # fmt: skip
RAY: Final = Peer(
    "Ray Serve, @serve.batch, ONNX Runtime CPU fp32", "ray", ("-m", f"{_APPS}.ray_serve", "{port}"),
    "/", "/-/healthz", raw, settings={"RAY_USAGE_STATS_ENABLED": "0"},
)  # fmt: skip

PEERS: Final = {
    "fastapi": FASTAPI,
    "fastapi-own": FASTAPI_OWN,
    "bentoml": BENTOML,
    "litserve": LITSERVE,
    "torchserve": TORCHSERVE,
    "ray": RAY,
}

OURS: Final = {
    "int8": {"RESNET_PRECISION": "int8"},
    "bf16": {"RESNET_PRECISION": "bf16"},
    "fp32-cpu": {"RESNET_PRECISION": "fp32", "RESNET_PROVIDER": "cpu"},
}
"""The service's own ways to run, which stand beside the peers."""


@dataclass(frozen=True)
class Promise:
    """``ours`` gives at least ``ratio`` times the images a second of ``peer``, with as many clients."""

    ours: str
    peer: str
    ratio: float


PROMISES: Final = (
    Promise("int8", "fastapi", 7.5),
    Promise("bf16", "fastapi", 4.5),
    Promise("fp32-cpu", "fastapi", 1.1),
    Promise("int8", "bentoml", 9.0),
    Promise("int8", "litserve", 13.0),
    Promise("int8", "torchserve", 13.0),
    Promise("int8", "ray", 9.0),
    Promise("int8", "fastapi-own", 1.4),
)
LATENCY_RATIO: Final = 0.75
"""The p50 of one client of int8 over that of ``fastapi-own``, at most."""
