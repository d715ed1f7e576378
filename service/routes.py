"""The HTTP side: routes, queries, answers, and what becomes of errors."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from service.answers import Answer, error_answer, json_answer
from service.bodies import is_multipart, read_body, split_images
from service.disconnect import ClientGone, UntilDisconnect
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

_DEFAULT_TOP_K: Final = 5
_CLASSIFY_QUERY: Final = frozenset({"top_k", "model", "version"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_CLIENT_GONE: Final = 499  # nginx's number for it; seen in metrics alone


@dataclass(slots=True)
class Call:
    """One request on its way: what handlers need and what the metrics are told."""

    headers: Headers
    query: bytes
    receive: Receive
    deadline: float
    request_id: str
    model: str = ""


class Api:
    """The ASGI application: ``/v1/classify``, ``/v1/models``, ``/metrics`` and an index."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._routes: dict[str, dict[str, Callable[[Call], Awaitable[Answer]]]] = {
            "/": {"GET": self._index},
            "/v1/classify": {"POST": self._classify},
            "/v1/models": {"GET": self._list_models},
            "/metrics": {"GET": self._show_metrics},
        }

    def knows(self, path: str) -> bool:
        """Whether ``path`` is one of its routes."""
        return path in self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = perf_counter()
        path = scope["path"]
        deadline = asyncio.get_running_loop().time() + self._runtime.settings.limits.deadline_s
        headers = Headers(scope=scope)
        call = Call(headers, scope.get("query_string", b""), receive, deadline, _request_id(headers))
        answer = await self._answer(call, path, scope["method"])
        # Counted before it is sent, so that a client that has its answer finds itself in the metrics.
        known = path if path in self._routes else "other"
        self._runtime.metrics.answered(known, call.model, answer.status, perf_counter() - began)
        await answer.send(send, call.request_id)

    async def _answer(self, call: Call, path: str, method: str) -> Answer:
        try:
            async with asyncio.timeout_at(call.deadline):
                return await self._handler(path, method)(call)
        except ClientGone:
            # Nobody hears it, but the server waits for an answer before it lets the request go.
            return Answer(_CLIENT_GONE, b"", ())
        except MethodNotAllowed as error:
            return error_answer(error, call.request_id, (b"allow", _allowed(self._routes[path]).encode()))
        except ServiceError as error:
            if error.status >= 500 and not isinstance(error, (NotReady, ShuttingDown)):
                logger.error("request %s to %s: %s", call.request_id, path, error.message)
            return error_answer(error, call.request_id)
        except TimeoutError:
            late = DeadlineExceeded(f"no answer within {self._runtime.settings.limits.deadline_s:g} s")
            return error_answer(late, call.request_id)
        except Exception:
            logger.exception("request %s to %s failed", call.request_id, path)
            failed = ServiceError("the service failed; the request id helps its operator")
            return error_answer(failed, call.request_id)

    def _handler(self, path: str, method: str) -> Callable[[Call], Awaitable[Answer]]:
        methods = self._routes.get(path)
        if methods is None:
            raise UnknownRoute(f"nothing is here; there are {', '.join(self._routes)}")
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise MethodNotAllowed(f"{path} takes {_allowed(methods)}")
        return handler

    async def _index(self, call: Call) -> Answer:
        del call
        return json_answer({"service": "resnet-serving", "routes": [*self._routes, "/livez", "/readyz"]})

    async def _show_metrics(self, call: Call) -> Answer:
        del call
        page = await asyncio.to_thread(self._runtime.metrics.page)
        return Answer(200, page, ((b"content-type", CONTENT_TYPE.encode()),))

    async def _list_models(self, call: Call) -> Answer:
        del call
        models = self._runtime.models
        described = [
            _describe(model, model is models[0]) | {"profile": profile.date if profile else None}
            for model, profile in zip(models, self._runtime.profiles, strict=True)
        ]
        return json_answer({"models": described})

    async def _classify(self, call: Call) -> Answer:
        pipeline, k = self._parse_classify(call)
        limits = self._runtime.settings.limits
        with self._runtime.gate.admit() as ticket:
            with self._runtime.metrics.timed("read"):
                body = await read_body(call.headers, call.receive, limits.max_body_bytes)
            if is_multipart(call.headers):
                images = await self._runtime.in_decode_pool(split_images, call.headers, body, limits.images_per_request)
            else:
                images = split_images(call.headers, body, limits.images_per_request)
            del body  # a form's images are copies; one of the two is enough
            ticket.extend(len(images))
            results: list[list[Prediction] | ImageError]
            async with UntilDisconnect(call.receive):
                if len(images) == 1:
                    results = [await pipeline.classify(images[0], k, call.deadline)]
                else:
                    results = await pipeline.classify_many(images, k, call.deadline)
        manifest = pipeline.stored.manifest
        return json_answer(
            {
                "model": {"name": manifest.name, "version": manifest.version},
                "results": [_result(result) for result in results],
                "request_id": call.request_id,
            }
        )

    def _parse_classify(self, call: Call) -> tuple[Pipeline, int]:
        """The model and ``top_k`` of the query; unknown or repeated parameters are mistakes worth telling."""
        query = _query(call.query, _CLASSIFY_QUERY)
        pipeline = self._runtime.find(query.get("model"), query.get("version"))
        call.model = pipeline.stored.manifest.name
        classes = len(pipeline.labels)
        text = query.get("top_k")
        if text is None:
            return pipeline, min(_DEFAULT_TOP_K, classes)
        if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= classes):
            raise BadRequest(f"top_k must be a whole number from 1 to {classes}")
        return pipeline, int(text)


def _query(raw: bytes, known: frozenset[str]) -> dict[str, str]:
    """The parameters of a query string; ``BadRequest`` for one that is unknown or given twice."""
    if not raw:
        return {}
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    query = dict(pairs)
    unknown = sorted(set(query) - known)
    if unknown:
        raise BadRequest(f"unknown query parameter {unknown[0][:64]!r}; known: {', '.join(sorted(known))}")
    if len(pairs) > len(query):
        raise BadRequest("a query parameter is given twice")
    return query


def _allowed(methods: Iterable[str]) -> str:
    """What ``methods`` let a client do; where there is GET there is HEAD."""
    return ", ".join("GET, HEAD" if method == "GET" else method for method in methods)


def _request_id(headers: Headers) -> str:
    """The client's ``X-Request-ID`` where it is a plain one, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


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
