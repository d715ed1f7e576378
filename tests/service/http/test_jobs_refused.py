"""Jobs that are not taken, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.runtime import Runtime
from tests.service.conftest import eventually
from tests.service.http.conftest import Exchange, check_error, files
from tests.service.http.job_service import IMAGES, URL, Client, create, held, serve
from tests.service.jobs.conftest import a_zip


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("task=dream", 400, "bad_request"),
        ("colour=red", 400, "bad_request"),
        ("top_k=0", 400, "bad_request"),
        ("top_k=8", 400, "bad_request"),
        ("class=nothing&task=explain", 400, "bad_request"),
        ("class=1", 400, "bad_request"),
        ("task=embed&top_k=1", 400, "bad_request"),
        ("task=explain&normalize=true", 400, "bad_request"),
        ("normalize=true", 400, "bad_request"),
        ("model=none", 404, "unknown_model"),
        ("version=7", 404, "unknown_model"),
    ],
)
def test_what_cannot_be_is_refused_before_the_body(tiny_root: Path, query: str, status: int, code: str) -> None:
    async def use(_: Client, runtime: Runtime) -> None:
        exchange = Exchange(runtime, path=URL, query=query)
        check_error(await exchange.response(), status, code)
        assert exchange.received == 0

    serve(tiny_root, use)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b""}, 400, "bad_request"),
        ({"content": b"PK\x03\x04 is no archive"}, 400, "bad_request"),
        ({"content": a_zip({})}, 400, "bad_request"),
        ({"json": {"pictures": []}}, 400, "bad_request"),
        ({"data": {"a": "b"}, "files": files(b"1")}, 400, "bad_request"),
        ({"content": a_zip({str(i): b"" for i in range(6)})}, 413, "too_many_images"),
        ({"files": files(*[b"1"] * 6)}, 413, "too_many_images"),
        ({"json": {"images": ["AAAA"] * 6}}, 413, "too_many_images"),
        ({"content": b"x" * 3000}, 413, "body_too_large"),
        ({"content": a_zip({"a": b"\0" * 9000})}, 413, "body_too_large"),
    ],
)
def test_what_is_refused_leaves_nothing(
    tiny_root: Path, tmp_path: Path, request_: dict[str, Any], status: int, code: str
) -> None:
    async def use(client: Client, _: Runtime) -> None:
        check_error(await client.post(URL, **request_), status, code)
        assert held(tmp_path) == []

    serve(tiny_root, use, jobs_dir=tmp_path, jobs_max_images=5, jobs_max_body_bytes=2000, jobs_max_unpacked_bytes=5000)


def test_too_many_jobs_are_refused_before_the_body(tiny_root: Path) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        path = await create(client)
        response = await client.post(URL, content=a_zip(IMAGES))
        assert "1 jobs are held" in check_error(response, 429, "too_many_jobs")
        await client.delete(path)
        await create(client)

    serve(tiny_root, use, jobs_max=1)


def test_a_client_that_leaves_while_it_sends_leaves_nothing(tiny_root: Path, tmp_path: Path) -> None:
    async def use(_: Client, runtime: Runtime) -> None:
        exchange = Exchange(runtime, {"content-length": "100"}, path=URL)
        exchange.say(b"PK", more=True)
        await eventually(lambda: len(list(tmp_path.glob(".part-*"))) == 1)
        exchange.leave()
        await exchange.response()
        assert held(tmp_path) == []

    serve(tiny_root, use, jobs_dir=tmp_path)


def test_a_body_may_take_longer_than_a_request_and_not_for_ever(tiny_root: Path, tmp_path: Path) -> None:
    async def use(_: Client, runtime: Runtime) -> None:
        exchange = Exchange(runtime, path=URL)
        exchange.say(b"PK", more=True)
        check_error(await exchange.response(), 408, "slow_client")
        assert held(tmp_path) == []

    serve(tiny_root, use, jobs_dir=tmp_path, jobs_upload_s=0.2)
