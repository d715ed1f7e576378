"""The ASGI application: routes, deadlines, and what becomes of errors."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from time import perf_counter
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from service.errors import DeadlineExceeded, MethodNotAllowed, NotReady, ServiceError, ShuttingDown, UnknownRoute
from service.http import images, models, page, repository
from service.http.answers import Answer, error_answer
from service.http.disconnect import ClientGone
from service.http.routing import Call, Match, Router
from service.runtime import Runtime

logger = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_CLIENT_GONE: Final = 499  # nginx's number for it; seen in metrics alone


class Api:
    """All routes of the service but BentoML's own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        routes = [*images.routes(runtime), *models.routes(runtime), *repository.routes(runtime)]
        self._router = Router([*routes, *page.routes(runtime, routes)])

    def knows(self, path: str) -> bool:
        """Whether ``path`` is one of its routes."""
        return self._router.match(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = perf_counter()
        deadline = asyncio.get_running_loop().time() + self._runtime.settings.limits.deadline_s
        headers = Headers(scope=scope)
        query = scope.get("query_string", b"")
        match = self._router.match(scope["path"])
        call = Call(scope["method"], headers, query, receive, deadline, _request_id(headers))
        answer = await self._answer(call, match, scope["path"])
        # Counted before it is sent, so that a client that has its answer finds itself in the metrics.
        path = "other" if match is None else match.path
        self._runtime.metrics.answered(path, call.model, call.version, answer.status, perf_counter() - began)
        await answer.send(send, call.request_id)

    async def _answer(self, call: Call, match: Match | None, asked: str) -> Answer:
        path = "an unknown path" if match is None else match.path
        try:
            async with asyncio.timeout_at(call.deadline):
                return await self._handle(call, match)
        except ClientGone:
            # Nobody hears it, but the server waits for an answer before it lets the request go.
            return Answer(_CLIENT_GONE, b"", ())
        except ServiceError as error:
            if error.status >= 500 and not isinstance(error, (NotReady, ShuttingDown)):
                logger.error("request %s to %s: %s", call.request_id, path, error.message)
            allow = ((b"allow", match.allowed.encode()),) if match and isinstance(error, MethodNotAllowed) else ()
            return error_answer(error, call.request_id, *allow, path=asked)
        except TimeoutError:
            late = DeadlineExceeded(f"no answer within {self._runtime.settings.limits.deadline_s:g} s")
            return error_answer(late, call.request_id, path=asked)
        except Exception:
            logger.exception("request %s to %s failed", call.request_id, path)
            failed = ServiceError("the service failed; the request id helps its operator")
            return error_answer(failed, call.request_id, path=asked)

    async def _handle(self, call: Call, match: Match | None) -> Answer:
        if match is None:
            raise UnknownRoute(f"nothing is here; there are {', '.join(self._router.paths)}")
        route = match.methods.get("GET" if call.method == "HEAD" else call.method)
        if route is None:
            raise MethodNotAllowed(f"{match.path} takes {match.allowed}")
        call.path = match.values
        return await route.handler(call)


def _request_id(headers: Headers) -> str:
    """The client's ``X-Request-ID`` where it is a plain one, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
