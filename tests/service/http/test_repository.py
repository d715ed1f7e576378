"""``/v2/repository``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.api import Api
from service.runtime import Runtime
from tests.service.conftest import a_png, eventually, serving, some_settings
from tests.service.models.conftest import publish, served

KEY = "a-key-of-the-administrator"
AS_ADMIN = {"authorization": f"Bearer {KEY}"}
INDEX = "/v2/repository/index"
Use = Callable[[httpx.AsyncClient, Runtime], Awaitable[None]]


def serve(root: Path, use: Use, **environ: object) -> None:
    async def with_client(runtime: Runtime) -> None:
        transport = httpx.ASGITransport(Api(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=AS_ADMIN) as client:
            await use(client, runtime)

    serving(some_settings(root, **({"watch_s": 0, "admin_key": KEY} | environ)), with_client)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``tiny`` and ``other``, each in version 1."""
    publish(tmp_path, "1")
    publish(tmp_path, "1", "other")
    return tmp_path


def path(name: str, what: str) -> str:
    return f"/v2/repository/models/{name}/{what}"


PATHS = [INDEX, path("tiny", "load"), path("tiny", "unload")]


@pytest.mark.parametrize("route", PATHS)
def test_without_a_configured_key_all_is_closed(root: Path, route: str) -> None:
    async def use(runtime: Runtime) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(Api(runtime)), base_url="http://test") as client:
            for headers in ({}, AS_ADMIN, {"authorization": "Bearer "}):
                answer = await client.post(route, headers=headers)
                assert answer.status_code == 403
                assert answer.json() == {"error": "closed: RESNET_ADMIN_KEY is not set"}
        assert len(runtime.models) == 2

    serving(some_settings(root, watch_s=0), use)


@pytest.mark.parametrize("route", PATHS)
@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer \xe9\xff"]
)
def test_a_wrong_key_is_refused(root: Path, route: str, given: str) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        answer = await client.post(route, headers={"authorization": given.encode("latin-1")})  # type: ignore[dict-item]
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in answer.text
        assert len(runtime.models) == 2

    serve(root, use)


def test_the_key_is_nowhere_to_be_read(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        await client.post(INDEX, headers={"authorization": "Bearer wrong"})
        await client.post(INDEX)
        assert KEY not in repr(runtime.settings) + str(runtime.settings) + runtime.settings.model_dump_json()
        assert KEY not in (await client.get("/metrics")).text

    with caplog.at_level("DEBUG"):
        serve(root, use)
    assert KEY not in caplog.text


def test_the_index(root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        publish(root, "2")
        (root / "tiny" / "2" / "fp32.onnx").write_bytes(b"damaged")
        await runtime.lifecycle.refresh()
        publish(root, "3")
        await runtime.lifecycle.refresh()
        await eventually(lambda: not runtime.lifecycle.draining)
        rows = (await client.post(INDEX, json={})).json()
        assert [(row["name"], row["version"], row["state"]) for row in rows] == [
            ("other", "1", "READY"),
            ("tiny", "1", "UNAVAILABLE"),
            ("tiny", "2", "UNAVAILABLE"),
            ("tiny", "3", "READY"),
        ]
        assert "not among" in rows[1]["reason"]
        assert "tiny/2/fp32.onnx" in rows[2]["reason"]
        ready = (await client.post(INDEX, json={"ready": True})).json()
        assert [(row["name"], row["version"]) for row in ready] == [("other", "1"), ("tiny", "3")]

    serve(root, use)


def test_unload_and_load(root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        answer = await client.post(path("tiny", "unload"), json={"parameters": {"unload_dependents": False}})
        assert answer.status_code == 200, answer.text
        assert served(runtime) == [("other", "1")]
        gone = await client.post("/v1/classify?model=tiny", content=a_png())
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "unknown_model")
        await eventually(lambda: not runtime.lifecycle.draining)
        rows = (await client.post(INDEX)).json()
        assert [(row["state"], row["reason"]) for row in rows if row["name"] == "tiny"] == [("UNAVAILABLE", "unloaded")]
        assert (await client.get("/v1/models/tiny")).json()["unloaded"] is True
        publish(root, "2")
        await runtime.lifecycle.refresh()
        assert served(runtime) == [("other", "1")], "what is unloaded stays so, whatever is published"
        loaded = await client.post(path("tiny", "load"))
        assert loaded.json()[-1] == {"name": "tiny", "version": "2", "state": "READY", "reason": ""}
        assert (await client.post("/v1/classify?model=tiny", content=a_png())).json()["model"]["version"] == "2"

    serve(root, use)


def test_the_default_model_is_replaced_by_no_other(root: Path) -> None:
    """Who names no model and means the default one must not be answered by another network."""

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        assert (await client.post(path("other", "unload"))).status_code == 200
        answer = await client.post("/v1/classify", content=a_png())
        assert answer.status_code == 404
        assert "default model 'other' is not loaded; served: tiny" in answer.json()["error"]["message"]
        assert (await client.post(path("tiny", "unload"))).status_code == 200
        assert (await client.get("/v1/models")).json()["models"] == []
        assert (await client.post(path("other", "load"))).status_code == 200
        assert (await client.post("/v1/classify", content=a_png())).status_code == 200

    serve(root, use)


def test_load_reads_the_store_now(root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        publish(root, "1", "new")
        assert (await client.post(path("new", "load"))).status_code == 200
        assert ("new", "1") in served(runtime)

    serve(root, use)


def test_what_cannot_be_loaded_says_why(root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        publish(root, "2")
        (root / "tiny" / "2" / "labels.txt").unlink()
        answer = await client.post(path("tiny", "load"))
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("failed to load 'tiny': version 2: tiny/2/labels.txt: ")
        assert ("tiny", "1") in served(runtime)

    serve(root, use)


@pytest.mark.parametrize(
    ("route", "request_", "status"),
    [
        (path("none", "load"), {}, 404),
        (path("none", "unload"), {}, 404),
        (path("..", "load"), {}, 404),
        (path("%2e%2e%2fx", "unload"), {}, 404),
        (path("tiny", "load"), {"json": {"parameters": {"config": "{}"}}}, 400),
        (path("tiny", "load"), {"content": b"{"}, 400),
        (path("tiny", "unload"), {"json": {"x": 1}}, 400),
        (INDEX, {"json": []}, 400),
        (f"{INDEX}?x=1", {}, 400),
        (INDEX, {"content": b" " * 100_000}, 413),
    ],
)
def test_what_is_refused(root: Path, route: str, request_: dict[str, Any], status: int) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        answer = await client.post(route, **request_)
        assert answer.status_code == status
        if "repository" in route and status != 404:
            assert isinstance(answer.json()["error"], str)
        assert len(runtime.models) == 2

    serve(root, use)


def test_a_model_that_the_settings_do_not_name_is_not_loaded(root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        assert (await client.post(path("other", "load"))).status_code == 404
        assert served(runtime) == [("tiny", "1")]

    serve(root, use, models="tiny")
