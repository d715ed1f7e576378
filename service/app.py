"""The BentoML service: processes, life cycle, mounted routes. The only module that imports bentoml.

Images take the mounted ASGI application, not ``@bentoml.api``: BentoML's own
input types would fetch URLs that clients send, and cost ten times as much. Its
metrics (labelled by raw path), tracing and access log are off for the same reason.
The one method there is, for BentoML's clients, takes that way, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from service.config import ConfigError, load_settings, variable
from service.process.workers import Workers, make_run_dir, worker_count

_RUN_DIR = variable("run_dir")
_MODEL_STORE = variable("model_store")
_JOBS_DIR = variable("jobs_dir")

try:
    settings = load_settings()
except ConfigError as error:
    sys.exit(f"resnet-serving: {error}")

if settings.server.run_dir is not None:
    try:
        settings.server.run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"resnet-serving: {_RUN_DIR}: {error}")
    # Read by prometheus_client when it is first imported; BentoML's own folder is emptied by every other service.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(settings.server.run_dir)

# Read by gRPC's core when it is loaded: it would write to the log what clients send, line breaks and all.
os.environ["GRPC_VERBOSITY"] = "NONE"

import bentoml  # noqa: E402
import orjson  # noqa: E402
from _bentoml_sdk import Service  # noqa: E402
from bentoml.exceptions import BentoMLException  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.types import ASGIApp, Receive, Scope, Send  # noqa: E402
from uvicorn.protocols.http import auto as uvicorn_auto  # noqa: E402

from service.errors import NotReady  # noqa: E402
from service.http import native  # noqa: E402
from service.http.api import Api  # noqa: E402
from service.http.bounded import BoundedBodies  # noqa: E402
from service.http.connections import Connections, allow_files  # noqa: E402
from service.http.cors import with_cors  # noqa: E402
from service.http.metrics_server import MetricsServer  # noqa: E402
from service.http.probes import BENTOML_PATHS  # noqa: E402
from service.http.protocol import guarded  # noqa: E402
from service.jobs.store import JobStore  # noqa: E402
from service.logs import log_format  # noqa: E402
from service.metrics import Metrics  # noqa: E402
from service.process.memory import settle  # noqa: E402
from service.process.ports import check_port  # noqa: E402
from service.process.stopping import SLACK_S, Stopping  # noqa: E402
from service.process.supervision import supervise  # noqa: E402
from service.process.tls import bentoml_options, check_tls  # noqa: E402
from service.providers import starts_on_gpu  # noqa: E402
from service.runtime import Runtime, StartError, check_start  # noqa: E402
from service.settings import ServerSettings  # noqa: E402

if TYPE_CHECKING:
    from service.grpc.server import GrpcServer

logger = logging.getLogger(__name__)
log_format.install(settings.logs.log_format)

_on_gpu = starts_on_gpu(settings.inference.provider)
workers = Workers(settings.server.run_dir, worker_count(settings.server.workers, on_gpu=_on_gpu))
if workers.count > 1:
    # Read by libuv when it listens: a worker that took one connection lets another take the next, or it takes all.
    os.environ["UV_TCP_SINGLE_ACCEPT"] = "1"
try:
    runtime = Runtime(settings, Metrics(settings.server.run_dir), workers)
except ConfigError as error:
    sys.exit(f"resnet-serving: {error}")
except OSError as error:
    sys.exit(f"resnet-serving: {_RUN_DIR}: {error}")


api = Api(runtime)
stop_s = settings.server.stop_s or settings.server.drain_s + settings.limits.deadline_s + SLACK_S
stopping = Stopping(settings.server.drain_s, stop_s, runtime.drain)


class _Direct(Service[Any]):  # type: ignore[misc]
    """Gives our routes their requests before BentoML's middleware, which costs more than they do.

    The life cycle and the few paths that BentoML shall answer take its way; no other route of its own can be reached,
    and no body that goes there is larger than ours may be.
    """

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        rest = BoundedBodies(cast("ASGIApp", super().to_asgi(is_main)), settings.limits.max_body_bytes)
        allow_files(settings.connections.max_connections, 1 if settings.server.grpc_port is None else 2)
        # What uvicorn takes when it starts, after this; BentoML gives no other way to choose it.
        kept = Connections(settings.connections, runtime.metrics.rejected, lambda: stopping.began)
        uvicorn_auto.AutoHTTPProtocol = guarded(kept, api)

        async def direct(scope: Scope, receive: Receive, send: Send) -> None:
            if stopping.began and scope["type"] == "http":
                send = stopping.closing(send)
            bentomls = scope["type"] == "lifespan" or scope["path"] in BENTOML_PATHS
            await (rest if bentomls else api)(scope, receive, send)

        return with_cors(direct, settings.access.cors_origins)


@bentoml.service(
    service_class=_Direct,
    workers=workers.count,
    traffic={"timeout": settings.limits.deadline_s + 30},  # ours comes first
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
    logging={"access": {"enabled": False}},
    ssl=bentoml_options(settings.access),
)
@bentoml.asgi_app(api)
class ResNetService:
    """Classifies images with the models of a store."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Stop here, with one line, where what is configured cannot be had; make what the workers share."""
        try:
            check_start(settings)
            check_tls(settings.access)
            server = settings.server
            if server.grpc_port is not None:
                check_port("grpc", server.grpc_host, server.grpc_port)
            if server.metrics_port is not None:
                check_port("metrics", server.metrics_host, server.metrics_port)
            os.environ[_RUN_DIR] = str(make_run_dir(settings.server.run_dir))
        except (*StartError, OSError) as error:
            sys.exit(f"resnet-serving: {error}")
        try:
            if settings.jobs.jobs_dir is not None:
                JobStore(settings.jobs.jobs_dir, settings.jobs).prepare()
        except OSError as error:
            sys.exit(f"resnet-serving: {_JOBS_DIR}: {error}")
        # A bento's workers run in the bento's folder, not in this one.
        if isinstance(settings.store.model_store, Path):
            os.environ[_MODEL_STORE] = str(settings.store.model_store.absolute())
        supervise()

    def __init__(self) -> None:
        self._grpc: GrpcServer | None = None
        self._metrics: MetricsServer | None = None

    @bentoml.on_startup
    async def start(self) -> None:
        stopping.install()
        loading = runtime.start(settle)
        api.start()
        if settings.server.metrics_port is not None:  # before the models: that none is loaded is worth knowing
            self._metrics = await _started(MetricsServer(runtime.metrics, settings.access))
        if workers.replacing:
            await _warm(loading)
        else:
            loading.add_done_callback(_end_service_on_failure)
        if settings.server.grpc_port is not None:
            from service.grpc.server import GrpcServer  # a service without it does not load gRPC

            self._grpc = await _started(GrpcServer(runtime))
            if self._grpc is not None:
                stopping.also(self._grpc.close)

    @bentoml.on_shutdown
    async def stop(self) -> None:
        if self._grpc is not None:
            await self._grpc.stop()
        await api.stop()
        await runtime.stop()
        if self._metrics is not None:
            await self._metrics.stop()

    @bentoml.api(route=native.PATH)
    async def classify(self, image: bytes, /) -> dict[str, Any]:
        """The answer of ``/v1/classify`` to one image, with the default model.

        Requests are answered by ``api``, before they come here; this is for calls within the process.
        """
        status, answer = await native.classify(api, image)
        if status != HTTPStatus.OK:
            raise BentoMLException(answer["error"]["message"], error_code=HTTPStatus(status))
        return answer

    async def __is_ready__(self) -> bool:
        """Behind ``/readyz``: 503 with the reason, in the form of all our errors."""
        if reason := runtime.unready:
            error = NotReady(reason)
            headers = {"content-type": "application/json", "retry-after": str(error.retry_after_s)}
            raise HTTPException(error.status, orjson.dumps(error.as_json()).decode(), headers)
        return True


async def _warm(loading: asyncio.Task[None]) -> None:
    """For a worker that replaces another: until it may take connections.

    That is when its models are warm, as the other workers answer meanwhile; when they cannot be loaded and no other
    worker is left, so that somebody says so; or when it shall stop.
    """
    stopped, failed = (asyncio.create_task(event.wait()) for event in (stopping.told, runtime.load_failed))
    awaited = {loading, stopped, failed}
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
    if failed.done() and not workers.alone:
        await asyncio.wait(awaited - {failed}, return_when=asyncio.FIRST_COMPLETED)
    for event in (stopped, failed):
        event.cancel()


class _Listening(Protocol):
    """A server on a port of its own."""

    async def start(self, settings: ServerSettings) -> object: ...


L = TypeVar("L", bound=_Listening)


async def _started(server: L) -> L | None:
    """``server`` once it listens; where it cannot, the service ends."""
    try:
        await server.start(settings.server)
    except ConfigError as error:
        logger.error("resnet-serving: %s", error)
        workers.end_service()
        return None
    return server


def _end_service_on_failure(loading: asyncio.Task[None]) -> None:
    """A service that starts with a worker that cannot load its models is none."""
    error = None if loading.cancelled() else loading.exception()
    if error is None:
        return
    if isinstance(error, StartError):
        logger.error("resnet-serving: %s", error)
    else:
        logger.error("resnet-serving: the models cannot be loaded", exc_info=error)
    workers.end_service()
