"""A service that runs jobs, in one process, and what its clients do: create one, ask for it, wait, take its result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson

from service.http.api import Api
from service.http.job_operations import JobBody
from service.runtime import Runtime
from tests.service.conftest import a_png, serving, some_settings
from tests.service.jobs.conftest import a_zip

URL = "/v1/jobs"
Client = httpx.AsyncClient
Use = Callable[[Client, Runtime], Awaitable[None]]

IMAGES = {f"{i}.png": a_png(i) for i in range(5)}
MIXED = {**IMAGES, "notes.txt": b"no image", "broken.png": a_png(9)[:60]}


def serve(root: Path, use: Use, *, start: bool = True, **environ: object) -> None:
    """Run ``use`` with a client of a service over ``root`` that runs jobs; with ``start=False`` it only takes them."""

    async def with_client(runtime: Runtime) -> None:
        api = Api(runtime)
        if start:
            api.start()
        transport = httpx.ASGITransport(api, raise_app_exceptions=True)
        try:
            async with Client(transport=transport, base_url="http://test") as client:
                await use(client, runtime)
        finally:
            await api.stop()

    serving(some_settings(root, **environ), with_client)


async def create(client: Client, query: str = "", **request: Any) -> str:
    """The path of a new job."""
    response = await client.post(f"{URL}?{query}", **(request or {"content": a_zip(IMAGES)}))
    assert response.status_code == 202, response.text
    return str(response.headers["location"])


async def job_of(client: Client, path: str) -> dict[str, Any]:
    response = await client.get(path)
    assert response.status_code == 200
    job: dict[str, Any] = response.json()
    JobBody.model_validate(job)
    return job


async def ended(client: Client, path: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            job = await job_of(client, path)
            if job["state"] in ("done", "failed"):
                return job


def held(jobs_dir: Path) -> list[str]:
    """What is kept of jobs."""
    return [path.name for path in jobs_dir.iterdir() if path.name != ".lock"]


async def result(client: Client, path: str, query: str = "") -> list[dict[str, Any]]:
    response = await client.get(f"{path}/result{query}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert int(response.headers["content-length"]) == len(response.content)
    return [orjson.loads(line) for line in response.content.splitlines()]
