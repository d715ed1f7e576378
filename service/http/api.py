"""The ASGI application: routes, deadlines, and what becomes of errors."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from service.batching.gate import BUSY
from service.errors import (
    CLIENT_GONE,
    DeadlineExceeded,
    MethodNotAllowed,
    NotReady,
    Overloaded,
    ServiceError,
    ShuttingDown,
    SlowClient,
    UnknownRoute,
)
from service.http import (
    classify,
    debug,
    docs,
    embed,
    explain,
    inference_protocol,
    models,
    native,
    page,
    probes,
    repository,
    static,
)
from service.http.answers import Answer, error_answer
from service.http.disconnect import ClientGone
from service.http.jobs import Jobs
from service.http.keys import holder_of
from service.http.request_ids import request_id
from service.http.routing import Call, Match, Route, Router
from service.logs.stages import CURRENT, Stages
from service.runtime import Runtime

logger = logging.getLogger(__name__)


_OVERLOADED: Final = Overloaded(BUSY)
_NOTHING_DONE: Final = Stages()


class Api:
    """All routes of the service but BentoML's own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._keys = runtime.access.keys
        self._other_origins = bool(runtime.settings.access.cors_origins)
        modules = (classify, embed, explain, models, inference_protocol, repository, debug)
        routes = [route for module in modules for route in module.routes(runtime)]
        self._jobs = Jobs(runtime)
        routes += self._jobs.routes()
        routes += native.routes(routes)
        routes += static.routes()
        routes += docs.routes(runtime, routes)  # all of them: they are read when the document is first asked for
        routes += page.routes(runtime, routes)
        self._router = Router(routes)

    def start(self) -> None:
        """Begin what goes on beside requests; on the event loop."""
        self._jobs.start()

    async def stop(self) -> None:
        """End it, before the runtime stops."""
        await self._jobs.stop()

    @property
    def busy(self) -> bool:
        """Whether requests for inferences are refused."""
        return self._runtime.busy

    def refusal(self, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[Answer, str] | None:
        """The answer to a request for an inference while the service is busy, counted, and its id; None for others.

        A page of another origin may read its refusal only with headers that are not known here, so it is no matter for
        this either.
        """
        if self._other_origins and any(name == b"origin" for name, _ in headers):
            return None
        return self._refusal(method, path, headers)

    def _refusal(self, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[Answer, str] | None:
        match = self._router.match(path)
        route = None if match is None else match.route(method)
        if match is None or route is None or not route.gated:
            return None
        asked = request_id(Headers(raw=headers))
        if (slots := self._runtime.slots) is not None:
            slots.rest_soon()
        answer = error_answer(_OVERLOADED, asked, path=path)
        self._count(asked, method, match.path, answer, 0.0)
        return answer, asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # answered with 403: there is none here
            return
        if self._runtime.busy and (refused := self._refusal(scope["method"], scope["path"], scope["headers"])):
            # There may be far more of these than answers, and what they cost is taken from those: no trace, no timer.
            answer, asked = refused
            await answer.send(send, asked)
            return
        began = perf_counter()
        headers = Headers(scope=scope)
        query = scope.get("query_string", b"")
        match = self._router.match(scope["path"]) or probes.BENTOML.match(scope["path"])
        route = None if match is None else match.route(scope["method"])
        limit_s = (route and route.deadline_s) or self._runtime.settings.limits.deadline_s
        deadline = asyncio.get_running_loop().time() + limit_s
        call = Call(scope["method"], headers, query, receive, deadline, request_id(headers))
        CURRENT.set(call.stages)
        path = "other" if match is None else match.path
        with self._runtime.tracing.http(scope, headers, path, call.request_id) as traced:
            answer = await self._answer(call, match, route, scope["path"])
            seconds, model, version = perf_counter() - began, call.model, call.version
            self._count(call.request_id, call.method, path, answer, seconds, model, version, call.stages)
            traced.answered(answer.status, model, version)
            if traced.headers:
                answer.headers = (*answer.headers, *traced.headers)
            await answer.send(send, call.request_id)

    def _count(
        self,
        asked: str,
        method: str,
        path: str,
        answer: Answer,
        seconds: float,
        model: str = "",
        version: str = "",
        stages: Stages = _NOTHING_DONE,
    ) -> None:
        """Before it is sent, so that a client that has its answer finds itself in the metrics."""
        self._runtime.metrics.answered(path, model, version, answer.status, seconds, answer.code)
        self._runtime.requests.answered(
            asked, method, path, answer.status, answer.code, model, version, seconds, stages
        )

    async def _answer(self, call: Call, match: Match | None, route: Route | None, asked: str) -> Answer:
        path = "an unknown path" if match is None else match.path
        try:
            async with asyncio.timeout_at(call.deadline) as call.timer:
                return await self._handle(call, match, route)
        except ClientGone:
            # Nobody hears it, but the server waits for an answer before it lets the request go.
            return Answer(CLIENT_GONE, b"", (), code="client_gone")
        except ServiceError as error:
            if error.status >= 500 and not isinstance(error, (NotReady, ShuttingDown)):
                logger.error("request %s to %s: %s", call.request_id, path, error.message)
            allow = ((b"allow", match.allowed.encode()),) if match and isinstance(error, MethodNotAllowed) else ()
            return error_answer(error, call.request_id, *allow, path=asked)
        except TimeoutError:
            return error_answer(_late(call), call.request_id, path=asked)
        except Exception:
            logger.exception("request %s to %s failed", call.request_id, path)
            failed = ServiceError("the service failed; the request id helps its operator")
            return error_answer(failed, call.request_id, path=asked)

    async def _handle(self, call: Call, match: Match | None, route: Route | None) -> Answer:
        if match is None:
            raise UnknownRoute("nothing is here; /docs and /openapi.json say what there is")
        if route is None:
            raise MethodNotAllowed(f"{match.path} takes {match.allowed}")
        if self._keys is not None and route.operation.access == "key":
            call.holder = holder_of(self._keys, call.headers.get)
        call.path = match.values
        return await route.handler(call)


def _late(call: Call) -> ServiceError:
    if call.reading:
        return SlowClient("the body did not come in time, or nothing more of it for too long")
    return DeadlineExceeded("no answer within the time that this route allows")
