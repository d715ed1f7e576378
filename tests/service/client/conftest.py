"""A service made of a function, behind httpx's mock transport, and both clients on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.client import AsyncClient, Client, Options, Retry

URL = "http://service.test:3000"
MODEL = {"name": "tiny", "version": "1"}
SHIP = {"label": "ship", "index": 8, "probability": 0.75}
HEATMAP = {
    "label": "ship",
    "index": 8,
    "logit": 2.75,
    "bias": 0.25,
    "height": 1,
    "width": 2,
    "grid": [[1.0, 4.0]],
    "box": [0.0, 0.0, 32.0, 32.0],
    "image": {"width": 64, "height": 32},
}
PNG = b"\x89PNG\r\n\x1a\n and more"

Handler = Callable[[httpx.Request], httpx.Response]


def answer(*results: Any, **more: Any) -> httpx.Response:
    """A right answer of /v1/classify and its like."""
    return httpx.Response(200, json={"model": MODEL, "results": list(results), "request_id": "r1", **more})


def refusal(status: int, code: str, message: str = "so it is", **headers: str) -> httpx.Response:
    body = {"error": {"code": code, "message": message}, "request_id": "r1"}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def images_of(request: httpx.Request) -> list[bytes]:
    """The images in ``request``, a body or a form."""
    kind = request.headers["content-type"]
    if not kind.startswith("multipart/"):
        return [request.content]
    parts = request.content.split(b"--" + kind.partition("boundary=")[2].encode())
    return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:-1]]


def labels(request: httpx.Request) -> httpx.Response:
    """An answer in which each image's label is its content."""
    found = [{"predictions": [{"label": data.decode(), "index": 0, "probability": 1}]} for data in images_of(request)]
    return answer(*found)


class Script:
    """Answers in turn, the last again and again; ``requests`` are those that came."""

    def __init__(self, *steps: httpx.Response | Exception | Handler) -> None:
        self._steps = steps
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        step = self._steps[min(len(self.requests), len(self._steps) - 1)]
        self.requests.append(request)
        if isinstance(step, Exception):
            raise step
        # A fresh one each time: a response can be read once.
        return step(request) if not isinstance(step, httpx.Response) else _copy(step)


def _copy(response: httpx.Response) -> httpx.Response:
    return httpx.Response(response.status_code, headers=response.headers, content=response.content)


Call = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest) -> Call:
    """``call(handler, method, *arguments, options=..., **more)`` by each client; no pause but those asked."""
    at_once = Options(retry=Retry(first_pause_s=0))

    def blocking(handler: Handler, method: str, *arguments: Any, options: Options = at_once, **more: Any) -> Any:
        with Client(URL, options, transport=httpx.MockTransport(handler)) as client:
            return getattr(client, method)(*arguments, **more)

    def awaited(handler: Handler, method: str, *arguments: Any, options: Options = at_once, **more: Any) -> Any:
        async def run() -> Any:
            async with AsyncClient(URL, options, transport=httpx.MockTransport(handler)) as client:
                return await getattr(client, method)(*arguments, **more)

        return asyncio.run(run())

    return blocking if request.param == "blocking" else awaited


def as_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
