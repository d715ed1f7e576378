"""``/debug``: what a worker is doing, for whoever holds the admin key."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import os
import platform
import time
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, Field

from service import __version__
from service.config import given, shown
from service.http.admin import ADMIN_ERRORS, check_key
from service.http.answers import Answer, json_answer
from service.http.operation import Operation
from service.http.routing import Call, Query, Route
from service.logs.request_log import Answered
from service.metrics.usage import usage_here
from service.models.served import Served
from service.runtime import Runtime

_PACKAGES: Final = (
    "bentoml",
    "uvicorn",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-ep-openvino",
    "numpy",
    "pillow",
    "pydantic",
)


class WorkerBody(BaseModel):
    """The process that answers."""

    pid: int
    workers: int = Field(description="How many there are of its kind.")
    started: datetime
    uptime_s: float
    ready: bool
    unready: str | None = Field(description="Why it is not ready.")
    resident_bytes: int
    cpu_seconds: float
    open_files: int


class ConfigurationBody(BaseModel):
    """All settings in force, by variable; of a secret, whether it is `set`."""

    values: dict[str, Any]
    given: list[str] = Field(description="Those that the environment sets.")


class GateBody(BaseModel):
    """Images between acceptance and answer, and how many there may be."""

    images: int
    limit: int


class SlotsBody(BaseModel):
    """Where batches are computed, and how many models have work that waits for one."""

    count: int
    free: int
    models_waiting: int


class ServedBody(BaseModel):
    """A version that is served: requests that use it, its images that wait and that are computed."""

    name: str
    version: str
    aliases: list[str]
    provider: str
    precision: str
    leases: int
    queued: int
    computing: int


class DrainingBody(BaseModel):
    """A version that is served no more, and that is not closed yet."""

    name: str
    version: str


class SlowRequest(BaseModel):
    """As in the log: times in milliseconds, of several images each stage's longest; null what was not reached."""

    time: datetime
    id: str | None = None
    trace_id: str | None = None
    method: str | None = None
    route: str
    status: int
    error: str | None = None
    model: str | None = None
    version: str | None = None
    images: int | None = None
    bytes: int | None = None
    total_ms: float
    read_ms: float | None = None
    decode_ms: float | None = None
    queue_ms: float | None = None
    infer_ms: float | None = None


class DebugBody(BaseModel):
    """One worker's state."""

    worker: WorkerBody
    versions: dict[str, str]
    configuration: ConfigurationBody
    gate: GateBody
    slots: SlotsBody | None = Field(description="Null while the first models load.")
    models: list[ServedBody]
    draining: list[DrainingBody]
    slow_requests: list[SlowRequest] = Field(description="The 50 slowest of the last five minutes, the slowest first.")


class _Debug:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def show(self, call: Call) -> Answer:
        check_key(call, self._runtime)
        call.query(Query)
        body = self._body(await asyncio.to_thread(_versions))
        return json_answer(body.model_dump(mode="json"))

    def _body(self, versions: dict[str, str]) -> DebugBody:
        runtime = self._runtime
        slots = runtime.slots
        settings = runtime.settings
        return DebugBody(
            worker=self._worker(),
            versions=versions,
            configuration=ConfigurationBody(values=shown(settings), given=given(settings)),
            gate=GateBody(images=runtime.gate.images, limit=runtime.gate.limit),
            slots=slots and SlotsBody(count=slots.count, free=slots.free, models_waiting=slots.waiting),
            models=[self._served(served) for served in runtime.registry.served],
            draining=[DrainingBody(name=name, version=version) for name, version in runtime.lifecycle.draining],
            slow_requests=[_slow(request) for request in runtime.requests.slow.slowest()],
        )

    def _worker(self) -> WorkerBody:
        uptime_s = time.monotonic() - self._runtime.began_s
        usage = usage_here()
        unready = self._runtime.unready
        return WorkerBody(
            pid=os.getpid(),
            workers=self._runtime.workers,
            started=datetime.fromtimestamp(time.time() - uptime_s, UTC),
            uptime_s=round(uptime_s, 3),
            ready=unready is None,
            unready=unready,
            resident_bytes=usage.resident_bytes,
            cpu_seconds=usage.cpu_seconds,
            open_files=usage.open_files,
        )

    def _served(self, served: Served) -> ServedBody:
        model = self._runtime.registry.get(served.name)
        queued, computing = served.pipeline.load
        return ServedBody(
            name=served.name,
            version=served.version,
            aliases=[] if model is None else model.called(served.version),
            provider=served.pipeline.session.provider,
            precision=served.pipeline.session.variant.precision,
            leases=served.leases,
            queued=queued,
            computing=computing,
        )


def _slow(request: Answered) -> SlowRequest:
    return SlowRequest(time=datetime.fromtimestamp(request.ended_s, UTC), **request.as_fields())


@functools.cache
def _versions() -> dict[str, str]:
    """Of the service and of what its answers and its speed depend on; reads files."""
    found = {"resnet-serving": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


_EXAMPLE: Final = {
    "worker": {
        "pid": 4242,
        "workers": 2,
        "started": "2026-01-01T12:00:00Z",
        "uptime_s": 3600.0,
        "ready": True,
        "unready": None,
        "resident_bytes": 268435456,
        "cpu_seconds": 512.5,
        "open_files": 24,
    },
    "versions": {"resnet-serving": __version__, "python": "3.11.9", "onnxruntime": "1.31.0"},
    "configuration": {
        "values": {"RESNET_MAX_BATCH": 8, "RESNET_ADMIN_KEY": "set"},
        "given": ["RESNET_ADMIN_KEY"],
    },
    "gate": {"images": 1, "limit": 256},
    "slots": {"count": 2, "free": 1, "models_waiting": 0},
    "models": [
        {
            "name": "cifar10-resnet16",
            "version": "2",
            "aliases": ["stable"],
            "provider": "openvino",
            "precision": "int8",
            "leases": 1,
            "queued": 0,
            "computing": 1,
        }
    ],
    "draining": [],
    "slow_requests": [
        {
            "time": "2026-01-01T12:59:31.250000Z",
            "id": "6d8bfe88b2384dc3bcd76489c5a3d124",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "method": "POST",
            "route": "/v1/classify",
            "status": 200,
            "error": None,
            "model": "cifar10-resnet16",
            "version": "2",
            "images": 1,
            "bytes": 48213,
            "total_ms": 41.7,
            "read_ms": 0.2,
            "decode_ms": 2.3,
            "queue_ms": 30.1,
            "infer_ms": 8.6,
        }
    ],
}


def routes(runtime: Runtime) -> list[Route]:
    """The routes of this module."""
    operation = Operation(
        "What a worker is doing",
        "service",
        "Needs the admin key. Of the worker that answers, loading or not: its settings, queues, models, and the "
        "slowest requests of late. Secrets and contents of requests are not in it.",
        answers={200: {"application/json": DebugBody}},
        errors=ADMIN_ERRORS,
        examples={"a worker at work": _EXAMPLE},
        needs_models=False,
        access="admin",
    )
    return [Route("GET", "/debug", _Debug(runtime).show, operation)]
