"""How accepted jobs run: with which model, after a restart, beside requests and other workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.http import jobs as jobs_module
from service.inference.session import Session
from service.jobs.claims import Claim
from service.jobs.runner import Runner
from service.runtime import Runtime
from tests.service.conftest import Hold, a_png, publish_tiny
from tests.service.http.conftest import check_error
from tests.service.http.job_service import Client, create, ended, job_of, result, serve
from tests.service.jobs.conftest import a_zip


def test_a_jobs_model_is_fixed_when_it_is_accepted(tmp_path: Path) -> None:
    publish_tiny(tmp_path, version="1")
    publish_tiny(tmp_path, version="2")

    async def use(client: Client, _: Runtime) -> None:
        for query, version in (("version=2", "2"), ("model=tiny&version=1", "1"), ("model=tiny", "2")):
            path = await create(client, query)
            assert (await ended(client, path))["model"] == {"name": "tiny", "version": version}

    serve(tmp_path, use, models="tiny@1,tiny@2")


@pytest.mark.parametrize("width", ["auto", "2"])
def test_a_job_whose_model_is_gone_after_a_restart_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setattr(jobs_module, "_UNSERVED_S", 0.0)
    publish_tiny(tmp_path / "models", version="1")
    publish_tiny(tmp_path / "models", version="2")
    paths: list[str] = []

    async def first(client: Client, _: Runtime) -> None:
        paths.append(await create(client, "version=1"))

    async def second(client: Client, _: Runtime) -> None:
        job = await ended(client, paths[0])
        assert (job["state"], job["error"]["code"]) == ("failed", "unknown_model")
        assert job["expires"] is not None
        message = check_error(await client.get(f"{paths[0]}/result"), 409, "job_failed")
        assert "version '1'" in message
        assert await result(client, paths[0], "?partial=true") == []

    kept = tmp_path / "jobs"
    serve(tmp_path / "models", first, models="tiny@1,tiny@2", jobs_dir=kept, start=False)
    serve(tmp_path / "models", second, models="tiny@2", jobs_dir=kept, watch_s=0, jobs_width=width)


def test_a_job_goes_on_after_a_restart(tiny_root: Path, tmp_path: Path) -> None:
    paths: list[str] = []

    async def first(client: Client, _: Runtime) -> None:
        paths.append(await create(client))

    async def second(client: Client, _: Runtime) -> None:
        assert (await ended(client, paths[0]))["done"] == 5

    serve(tiny_root, first, jobs_dir=tmp_path, start=False)
    serve(tiny_root, second, jobs_dir=tmp_path)


def test_a_stop_in_the_middle_leaves_the_rest(
    tiny_root: Path, tmp_path: Path, hold_model: Callable[[Runtime], Hold]
) -> None:
    paths: list[str] = []
    many = {f"{i}.png": a_png(i) for i in range(50)}

    async def first(client: Client, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        paths.append(await create(client, content=a_zip(many)))
        await hold.wait_entered()
        asyncio.get_running_loop().call_soon(hold.released.set)

    async def second(client: Client, _: Runtime) -> None:
        job = await ended(client, paths[0])
        assert (job["state"], job["done"], job["failed"]) == ("done", 50, 0)
        assert [line["name"] for line in await result(client, paths[0])] == list(many)

    serve(tiny_root, first, jobs_dir=tmp_path)
    assert b'"state":"queued"' in next(tmp_path.glob("*/job.json")).read_bytes()
    serve(tiny_root, second, jobs_dir=tmp_path)


def test_requests_come_between_a_jobs_images(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    """One that comes while a long job runs waits for no more than the job's few images in work."""

    async def use(client: Client, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        path = await create(client, content=a_zip({f"{i}.png": a_png(i) for i in range(100)}))
        await hold.wait_entered()
        request = asyncio.create_task(client.post("/v1/classify", content=a_png(1)))
        hold.released.set()
        assert (await request).status_code == 200
        assert (await job_of(client, path))["state"] != "done"
        assert sum(map(len, hold.batches)) <= 20
        await client.delete(path)

    serve(tiny_root, use, jobs_width=2)


def test_width(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    real = Runner._advance

    async def noted(self: Runner, job: Any, images: Any, results: Any, width: int) -> Any:
        widths.append(width)
        return await real(self, job, images, results, width)

    async def use(client: Client, runtime: Runtime) -> None:
        await ended(client, await create(client))
        monkeypatch.setattr(Session, "on_cpu", False)
        await ended(client, await create(client))

    monkeypatch.setattr(Runner, "_advance", noted)
    serve(tiny_root, use, slots=3, max_batch=4)
    serve(tiny_root, use, jobs_width=5)
    assert widths == [6, 8, 5, 5]


def test_a_job_that_another_worker_runs_is_told_of_all_the_same(tiny_root: Path, tmp_path: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        path = await create(client)
        claim = Claim.take(tmp_path / path.rpartition("/")[2])
        assert claim is not None
        with claim:
            assert (await job_of(client, path))["state"] == "queued"
            check_error(await client.get(f"{path}/result"), 409, "job_not_done")
            assert (await client.delete(path)).status_code == 204

    serve(tiny_root, use, jobs_dir=tmp_path, start=False)
