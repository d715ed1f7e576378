"""No request leaves a reference cycle: what waits for the garbage collector holds bodies until then."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.http.api import Api
from service.runtime import Runtime
from tests.service.conftest import a_png, serving, some_settings, too_slow

REQUESTS = 20
BOUNDARY = "b"
PNG = a_png()
BROKEN = PNG[: len(PNG) // 2]
FORM = "multipart/form-data; boundary=" + BOUNDARY


def form(*files: bytes, end: bytes = b"--b--\r\n") -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in files) + end


def in_json(*files: bytes) -> bytes:
    return json.dumps({"images": [base64.b64encode(file).decode() for file in files]}).encode()


COSTLY = too_slow(20_000)  # what no thread takes

CASES: dict[str, tuple[int, str, str, bytes, str]] = {
    "good": (200, "POST", "/v1/classify", PNG, "image/png"),
    "no image": (415, "POST", "/v1/classify", b"junk" * 100, "image/png"),
    "a broken image": (422, "POST", "/v1/classify", BROKEN, "image/png"),
    "a costly image": (200, "POST", "/v1/classify", COSTLY, "image/jpeg"),
    "a good form": (200, "POST", "/v1/classify", form(PNG, PNG), FORM),
    "a form with bad images": (200, "POST", "/v1/classify", form(PNG, b"junk", BROKEN), FORM),
    "a form of a bad image": (415, "POST", "/v1/classify", form(b"junk"), FORM),
    "a form with a costly image": (200, "POST", "/v1/classify", form(PNG, COSTLY), FORM),
    "a form that breaks off": (400, "POST", "/v1/classify", form(PNG, end=b""), FORM),
    "a malformed form": (400, "POST", "/v1/classify", b"--x\r\n\r\n", FORM),
    "a form without a boundary": (400, "POST", "/v1/classify", b"x", "multipart/form-data"),
    "good JSON": (200, "POST", "/v1/classify", in_json(PNG, BROKEN), "application/json"),
    "malformed JSON": (400, "POST", "/v1/classify", b"{", "application/json"),
    "nothing": (400, "POST", "/v1/classify", b"", "image/png"),
    "too much": (413, "POST", "/v1/classify", b"x" * 200_000, "image/png"),
    "a wrong option": (400, "POST", "/v1/classify?top_k=none", PNG, "image/png"),
    "no such model": (404, "POST", "/v1/classify?model=none", PNG, "image/png"),
    "no such path": (404, "GET", "/v1/none", b"", ""),
    "a wrong method": (405, "PUT", "/v1/classify", b"", ""),
    "an embedding": (200, "POST", "/v1/embed", PNG, "image/png"),
    "an explanation": (200, "POST", "/v1/explain", PNG, "image/png"),
    "an explanation of no image": (415, "POST", "/v1/explain", b"junk", "image/png"),
    "the other protocol": (400, "POST", "/v2/models/tiny/infer", b"{}", "application/json"),
    "models": (200, "GET", "/v1/models", b"", ""),
}


@pytest.fixture(autouse=True)
def young_objects_alone() -> Iterator[None]:
    """What other tests hold is much, and looking through it takes a minute."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def ask(api: Api, method: str, target: str, body: bytes, kind: str) -> int:
    path, _, query = target.partition("?")
    headers = [(b"host", b"test"), (b"content-length", b"%d" % len(body))]
    if kind:
        headers.append((b"content-type", kind.encode()))
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": query.encode(),
             "headers": headers, "client": None, "server": None, "scheme": "http"}  # fmt: skip
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    status = [0]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(message: Any) -> None:
        status[0] = message.get("status", status[0])

    await api(scope, receive, send)
    return status[0]


async def left(api: Api, *request: Any) -> tuple[int, int]:
    """The status, and how many objects as many requests leave to the collector."""
    await ask(api, *request)  # what is made once
    await asyncio.sleep(0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(REQUESTS):
            status = await ask(api, *request)
        await asyncio.sleep(0)
        return status, gc.collect()
    finally:
        gc.enable()


@pytest.mark.parametrize("decode_threads", [0, 2])
def test_no_request_leaves_any(tiny_root: Path, decode_threads: int) -> None:
    async def use(runtime: Runtime) -> dict[str, tuple[int, int]]:
        api = Api(runtime)
        return {name: await left(api, *request) for name, (_, *request) in CASES.items()}

    settings = some_settings(tiny_root, decode_threads=decode_threads, max_body_bytes=150_000)
    found = serving(settings, use)
    assert {name: status for name, (status, _) in found.items()} == {name: case[0] for name, case in CASES.items()}
    assert {name: objects for name, (_, objects) in found.items() if objects >= REQUESTS} == {}


def test_a_deadline_leaves_none(tiny_root: Path) -> None:
    async def use(runtime: Runtime) -> tuple[int, int]:
        return await left(Api(runtime), "POST", "/v1/classify", PNG, "image/png")

    status, objects = serving(some_settings(tiny_root, deadline_s=1e-6), use)
    assert status == 504
    assert objects < REQUESTS
