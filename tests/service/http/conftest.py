"""The API in one process: a client of it, one exchange by hand, the form of errors, and forms taken apart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from service.http import connections as connections_module
from service.http.api import Api
from service.http.bodies import split_images
from service.runtime import Runtime
from tests.service.conftest import eventually, serving, some_settings

pytest.register_assert_rewrite("tests.service.http.job_service", "tests.service.http.protocol_server")

URL = "/v1/classify"
BOUNDARY = "b0undary"
Use = Callable[[httpx.AsyncClient, Runtime], Awaitable[None]]


def serve(root: Path, use: Use, **environ: object) -> None:
    """Run ``use`` with a client of a service over ``root``."""

    async def with_client(runtime: Runtime) -> None:
        transport = httpx.ASGITransport(Api(runtime), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await use(client, runtime)
            await eventually(lambda: runtime.gate.images == 0, "an empty gate")

    serving(some_settings(root, **environ), with_client)


def answer(
    root: Path, method: str, url: str, *, environ: dict[str, object] | None = None, **request: Any
) -> httpx.Response:
    """One request's response."""
    responses = []

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        responses.append(await client.request(method, url, **request))

    serve(root, use, **(environ or {}))
    return responses[0]


def check_error(response: httpx.Response, status: int, code: str) -> str:
    """The error's form; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert "\n" not in body["error"]["message"]
    assert body["request_id"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (status in (429, 503))
    if "retry-after" in response.headers:
        assert int(response.headers["retry-after"]) >= 1
    return str(body["error"]["message"])


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{i}.png", content, "image/png")) for i, content in enumerate(contents)]


def sample(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have ``labels``."""
    lines = [line for line in page.splitlines() if line.startswith((name + "{", name + " "))]
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))


class Exchange:
    """One HTTP exchange by hand, where the test decides when the client speaks and leaves."""

    def __init__(
        self, runtime: Runtime, headers: dict[str, str] | None = None, path: str = URL, query: str = ""
    ) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.received = 0
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()],
        }
        self.task = asyncio.create_task(Api(runtime)(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        message = await self.inbox.get()
        self.received += 1
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def say(self, body: bytes, more: bool = False) -> None:
        self.inbox.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})

    async def response(self) -> httpx.Response:
        await asyncio.wait_for(self.task, 30)
        start, *bodies = self.sent
        return httpx.Response(start["status"], headers=start["headers"], content=b"".join(m["body"] for m in bodies))


def form(content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> Headers:
    return Headers({"content-type": content_type})


def split(body: bytes, headers: Headers | None = None, max_images: int = 64) -> list[bytes]:
    return split_images(form() if headers is None else headers, body, max_images)


@pytest.fixture
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "_SWEEP_S", 0.02)
