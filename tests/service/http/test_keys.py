"""API keys over HTTP: who is let in where, what is refused, and what it costs others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from service.access.keys import line_of
from service.http.api import Api
from service.runtime import Runtime
from tests.service.conftest import Hold, a_png, eventually
from tests.service.http.conftest import URL, check_error, files, sample, serve

KEY, OTHER = "a-key-of-the-first-holder", "a-key-of-the-other-holder"
KEYS = f"first {line_of('x', KEY).split()[1]}, other {line_of('x', OTHER).split()[1]} images_per_s=none"
BEARER = {"authorization": f"Bearer {KEY}"}
Use = Callable[[httpx.AsyncClient, Runtime], Awaitable[None]]


def keyed(root: Path, use: Use, **environ: object) -> None:
    serve(root, use, api_keys=KEYS, **environ)


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"authorization": f"bearer   {KEY} "},
        {"x-api-key": KEY},
        {"x-api-key": KEY, "authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": "wrong", **BEARER},
    ],
)
def test_a_key_lets_in(tiny_root: Path, headers: dict[str, str]) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        assert (await client.post(URL, content=a_png(), headers=headers)).status_code == 200

    keyed(tiny_root, use)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": "Bearer wrong", "x-api-key": KEY},
        {"authorization": f"Bearer {'x' * 5000}"},
        {"x-api-key": ""},
        {"x-api-key": KEY.upper()},
        {"cookie": f"x-api-key={KEY}"},
    ],
)
def test_without_a_right_one_nothing_is_read(tiny_root: Path, headers: dict[str, str]) -> None:
    async def body() -> object:
        raise AssertionError("the body was read")
        yield b""

    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        answer = await client.post(URL, content=body(), headers=headers)  # type: ignore[arg-type]
        message = check_error(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in message
        page = (await client.get("/metrics")).text
        assert sample(page, "resnet_rejected_total", reason="unauthorized") == 1

    keyed(tiny_root, use)


def test_a_key_in_the_query_is_none(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        for name in ("key", "api_key", "x-api-key", "access_token"):
            assert (await client.post(f"{URL}?{name}={KEY}", content=a_png())).status_code == 401

    keyed(tiny_root, use)


OPEN = {"/", "/docs", "/openapi.json", "/metrics", "/web/{name}", "/v2/health/live", "/v2/health/ready"}
ADMIN = {"/debug", "/v2/repository/index", "/v2/repository/models/{name}/load", "/v2/repository/models/{name}/unload"}


def test_every_route_asks_for_the_key_that_it_should(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        routes = Api(runtime)._router.routes
        assert {route.path for route in routes} > OPEN | ADMIN
        senders = {"nobody": {}, "holder": BEARER, "admin": {"x-api-key": "an-administrators-key"}}
        for route in routes:
            path = route.path.replace("{name}", "tiny").replace("{version}", "1").replace("{id}", "0" * 32)
            statuses = {
                who: (await client.request(route.method, path, headers=headers)).status_code
                for who, headers in senders.items()
            }
            if route.path in OPEN:
                assert 401 not in statuses.values(), path
            elif route.path in ADMIN:
                assert set(statuses.values()) == {401}, path
            else:
                assert statuses["nobody"] == statuses["admin"] == 401, path
                assert statuses["holder"] not in (401, 403), path

    keyed(tiny_root, use, admin_key="an-administrators-key")


def test_without_keys_all_is_open(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        for headers in ({}, BEARER, {"authorization": "Bearer wrong"}):
            assert (await client.post(URL, content=a_png(), headers=headers)).status_code == 200

    serve(tiny_root, use)


def test_a_key_that_is_taken_out_of_the_file_lets_in_no_more(tiny_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(line_of("app", KEY))

    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        assert (await client.post(URL, content=a_png(), headers=BEARER)).status_code == 200
        path.write_text(line_of("app", OTHER))
        await runtime.access.look()
        assert (await client.post(URL, content=a_png(), headers=BEARER)).status_code == 401
        assert (await client.post(URL, content=a_png(), headers={"x-api-key": OTHER})).status_code == 200

    serve(tiny_root, use, api_keys_file=path)


def test_who_sends_too_much_waits_and_nobody_else(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        first = await client.post(URL, files=files(*[a_png()] * 3), headers=BEARER)
        assert first.status_code == 200
        refused = await client.post(URL, content=a_png(), headers=BEARER)
        assert "0.001 images a second" in check_error(refused, 429, "key_rate")
        assert int(refused.headers["retry-after"]) in range(2990, 3001)
        for path in (URL, "/v2/models/tiny/infer"):
            assert (await client.post(path, content=b"", headers=BEARER)).status_code == 429
        assert (await client.get("/v1/models", headers=BEARER)).status_code == 200
        for _ in range(5):
            assert (await client.post(URL, content=a_png(), headers={"x-api-key": OTHER})).status_code == 200
        page = (await client.get("/metrics")).text
        assert sample(page, "resnet_rejected_total", reason="key_rate") == 3
        assert sample(page, "resnet_rejected_total", reason="queue_full") == 0

    keyed(tiny_root, use, key_images_per_s=0.001, key_burst=1)


def test_who_has_much_in_work_waits_and_nobody_else(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    import asyncio

    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        working = [asyncio.create_task(client.post(URL, content=a_png(i), headers=BEARER)) for i in range(2)]
        await hold.wait_entered()
        await eventually(lambda: runtime.gate.images == 2, "two images in work")
        refused = await client.post(URL, content=a_png(), headers=BEARER)
        assert "2 images of this key" in check_error(refused, 429, "key_concurrency")
        assert refused.headers["retry-after"] == "1"
        other = asyncio.create_task(client.post(URL, content=a_png(), headers={"x-api-key": OTHER}))
        await eventually(lambda: runtime.gate.images == 3, "another's image")
        hold.released.set()
        assert [(await task).status_code for task in (*working, other)] == [200, 200, 200]
        assert (await client.post(URL, content=a_png(), headers=BEARER)).status_code == 200
        many = await client.post(URL, files=files(*[a_png()] * 3), headers=BEARER)
        check_error(many, 413, "too_many_images")
        page = (await client.get("/metrics")).text
        assert sample(page, "resnet_rejected_total", reason="key_concurrency") == 1

    keyed(tiny_root, use, key_concurrency=2)


def test_a_job_is_its_holders(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        job = (await client.post("/v1/jobs", content=a_png(), headers=BEARER)).json()["links"]["self"]
        for path in (job, f"{job}/result?partial=true"):
            stranger = await client.get(path, headers={"x-api-key": OTHER})
            nobodys = await client.get(path.replace(job, f"/v1/jobs/{'0' * 32}"), headers=BEARER)
            assert stranger.json()["error"] == nobodys.json()["error"]
            assert stranger.status_code == nobodys.status_code == 404
            assert (await client.get(path, headers=BEARER)).status_code == 200
        assert (await client.delete(job, headers={"x-api-key": OTHER})).status_code == 404
        assert (await client.delete(job, headers=BEARER)).status_code == 204

    keyed(tiny_root, use)
