"""The ASGI application: routes, deadlines, and what becomes of errors."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from service.errors import (
    CLIENT_GONE,
    DeadlineExceeded,
    MethodNotAllowed,
    NotReady,
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
from service.http.request_ids import request_id
from service.http.routing import Call, Match, Route, Router
from service.runtime import Runtime
from service.stages import CURRENT

logger = logging.getLogger(__name__)


class Api:
    """All routes of the service but BentoML's own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
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

    def knows(self, path: str) -> bool:
        """Whether ``path`` is one of its routes."""
        return self._router.match(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
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
            seconds = perf_counter() - began
            model, version = call.model, call.version
            # Counted before it is sent, so that a client that has its answer finds itself in the metrics.
            self._runtime.metrics.answered(path, model, version, answer.status, seconds)
            self._runtime.requests.answered(
                call.request_id, call.method, path, answer.status, answer.code, model, version, seconds, call.stages
            )
            traced.answered(answer.status, model, version)
            if traced.headers:
                answer.headers = (*answer.headers, *traced.headers)
            await answer.send(send, call.request_id)

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
        call.path = match.values
        return await route.handler(call)


def _late(call: Call) -> ServiceError:
    if call.reading:
        return SlowClient("the body did not come in time, or nothing more of it for too long")
    return DeadlineExceeded("no answer within the time that this route allows")
