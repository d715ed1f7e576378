"""The HTTP side: routes, queries, answers, and what becomes of errors."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.bodies import ClientGone, is_multipart, read_body, split_images
from service.errors import (
    BadRequest,
    DeadlineExceeded,
    ImageError,
    MethodNotAllowed,
    NotReady,
    ServiceError,
    ShuttingDown,
    UnknownRoute,
)
from service.metrics import CONTENT_TYPE
from service.pipeline import Pipeline
from service.postprocess import Prediction
from service.runtime import Runtime

logger = logging.getLogger(__name__)

T = TypeVar("T")

_DEFAULT_TOP_K: Final = 5
_CLASSIFY_QUERY: Final = frozenset({"top_k", "model", "version"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_CLIENT_GONE: Final = 499  # nginx's number for it; seen in metrics alone


@dataclass
class Call:
    """One request on its way: what handlers need and what the metrics are told."""

    request: Request
    receive: Receive
    deadline: float
    request_id: str
    model: str = field(default="")


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def error_response(error: ServiceError, request_id: str) -> Response:
    """The one place where errors become responses."""
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    return _json({**error.as_json(), "request_id": request_id}, error.status, headers)


class Api:
    """The ASGI application: ``/v1/classify``, ``/v1/models``, ``/metrics`` and an index."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._routes: dict[str, dict[str, Callable[[Call], Awaitable[Response]]]] = {
            "/": {"GET": self._index},
            "/v1/classify": {"POST": self._classify},
            "/v1/models": {"GET": self._list_models},
            "/metrics": {"GET": self._show_metrics},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = perf_counter()
        request = Request(scope)
        path = scope["path"]
        deadline = asyncio.get_running_loop().time() + self._runtime.settings.limits.deadline_s
        call = Call(request, receive, deadline, _request_id(request))
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._handler(path, scope["method"])(call)
        except ClientGone:
            # Nobody hears it, but BentoML's middleware waits for an answer before it lets the request go.
            response = Response(status_code=_CLIENT_GONE)
        except ServiceError as error:
            response = error_response(error, call.request_id)
            if error.status >= 500 and not isinstance(error, (NotReady, ShuttingDown)):
                logger.error("request %s to %s: %s", call.request_id, path, error.message)
            if isinstance(error, MethodNotAllowed):
                response.headers["allow"] = _allowed(self._routes[path])
        except TimeoutError:
            late = DeadlineExceeded(f"no answer within {self._runtime.settings.limits.deadline_s:g} s")
            response = error_response(late, call.request_id)
        except Exception:
            logger.exception("request %s to %s failed", call.request_id, path)
            response = error_response(
                ServiceError("the service failed; the request id helps its operator"), call.request_id
            )
        response.headers["x-request-id"] = call.request_id
        # Counted before it is sent, so that a client that has its answer finds itself in the metrics.
        known = path if path in self._routes else "other"
        self._runtime.metrics.answered(known, call.model, response.status_code, perf_counter() - began)
        await response(scope, receive, send)

    def _handler(self, path: str, method: str) -> Callable[[Call], Awaitable[Response]]:
        methods = self._routes.get(path)
        if methods is None:
            raise UnknownRoute(f"nothing is here; there are {', '.join(self._routes)}")
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise MethodNotAllowed(f"{path} takes {_allowed(methods)}")
        return handler

    async def _index(self, call: Call) -> Response:
        del call
        return _json({"service": "resnet-serving", "routes": [*self._routes, "/livez", "/readyz"]})

    async def _show_metrics(self, call: Call) -> Response:
        del call
        page = await asyncio.to_thread(self._runtime.metrics.page)
        return Response(page, headers={"content-type": CONTENT_TYPE})

    async def _list_models(self, call: Call) -> Response:
        del call
        default = self._runtime.models[0]
        return _json({"models": [_describe(model, model is default) for model in self._runtime.models]})

    async def _classify(self, call: Call) -> Response:
        pipeline, k = self._parse_classify(call)
        limits = self._runtime.settings.limits
        headers = call.request.headers
        with self._runtime.gate.admit() as ticket:
            with self._runtime.metrics.timed("read"):
                body = await read_body(headers, call.receive, limits.max_body_bytes)
            if is_multipart(headers):
                images = await self._runtime.in_decode_pool(split_images, headers, body, limits.images_per_request)
            else:
                images = split_images(headers, body, limits.images_per_request)
            del body  # a form's images are copies; one of the two is enough
            ticket.extend(len(images))
            results: list[list[Prediction] | ImageError]
            if len(images) == 1:
                results = [await until_disconnect(pipeline.classify(images[0], k, call.deadline), call.receive)]
            else:
                results = await until_disconnect(pipeline.classify_many(images, k, call.deadline), call.receive)
        manifest = pipeline.stored.manifest
        return _json(
            {
                "model": {"name": manifest.name, "version": manifest.version},
                "results": [_result(result) for result in results],
                "request_id": call.request_id,
            }
        )

    def _parse_classify(self, call: Call) -> tuple[Pipeline, int]:
        """The model and ``top_k`` of the query; unknown or repeated parameters are mistakes worth telling."""
        query = call.request.query_params
        unknown = sorted(set(query) - _CLASSIFY_QUERY)
        if unknown:
            raise BadRequest(
                f"unknown query parameter {unknown[0][:64]!r}; known: {', '.join(sorted(_CLASSIFY_QUERY))}"
            )
        if len(query.multi_items()) > len(query):
            raise BadRequest("a query parameter is given twice")
        pipeline = self._runtime.find(query.get("model"), query.get("version"))
        call.model = pipeline.stored.manifest.name
        classes = len(pipeline.labels)
        text = query.get("top_k", str(min(_DEFAULT_TOP_K, classes)))
        if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= classes):
            raise BadRequest(f"top_k must be a whole number from 1 to {classes}")
        return pipeline, int(text)


def _allowed(methods: Iterable[str]) -> str:
    """What ``methods`` let a client do; where there is GET there is HEAD."""
    return ", ".join("GET, HEAD" if method == "GET" else method for method in methods)


def _request_id(request: Request) -> str:
    """The client's ``X-Request-ID`` where it is a plain one, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _result(result: list[Prediction] | ImageError) -> dict[str, Any]:
    return result.as_json() if isinstance(result, ImageError) else {"predictions": result}


def _describe(pipeline: Pipeline, default: bool) -> dict[str, Any]:
    manifest, session = pipeline.stored.manifest, pipeline.session
    return {
        "name": manifest.name,
        "version": manifest.version,
        "default": default,
        "architecture": manifest.architecture.name,
        "classes": manifest.outputs.classes,
        "labels": pipeline.labels,
        "input": {"height": manifest.preprocessing.height, "width": manifest.preprocessing.width},
        "provider": session.provider,
        "precision": session.variant.precision,
        "gated": session.variant.gated,
        "passed_over": session.passed_over,
        "sha256": session.variant.sha256,
    }


async def until_disconnect(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of ``work``; cancels it and raises ``ClientGone`` where the client leaves first."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
