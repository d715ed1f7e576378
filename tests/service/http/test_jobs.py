"""/v1/jobs in one process: what comes in, what is told, what comes out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.http import jobs
from service.http.job_operations import CREATE, REMOVE, RESULT, SHOW, JobBody
from service.jobs.results import whole_lines
from service.runtime import Runtime
from tests.service.conftest import Hold, a_png
from tests.service.http.conftest import check_error, files, sample
from tests.service.http.job_service import IMAGES, MIXED, URL, Client, create, ended, held, job_of, result, serve
from tests.service.jobs.conftest import a_zip


@pytest.mark.parametrize(
    ("task", "query"),
    [
        ("classify", ""),
        ("classify", "top_k=2"),
        ("classify", "include=predictions,embedding,heatmap,scores&class=2&min_probability=0.3"),
        ("embed", ""),
        ("embed", "normalize=true"),
        ("explain", ""),
        ("explain", "class=class 0"),
    ],
)
def test_a_jobs_lines_are_what_the_route_answers(tiny_root: Path, task: str, query: str) -> None:
    async def use(client: Client, _: Runtime) -> None:
        sent = files(*MIXED.values())
        answer = (await client.post(f"/v1/{task}?{query}", files=sent)).raise_for_status().json()
        path = await create(client, f"task={task}&{query}", content=a_zip(MIXED))
        job = await ended(client, path)
        assert (job["state"], job["images"], job["done"], job["task"]) == ("done", 7, 7, task)
        assert job["failed"] == sum("error" in found for found in answer["results"]) >= 2
        assert job["model"] == answer["model"]
        expected = [
            {"name": name, "index": index, **found}
            for index, (name, found) in enumerate(zip(MIXED, answer["results"], strict=True))
        ]
        assert await result(client, path) == expected

    serve(tiny_root, use)


def test_timings_are_there_without_a_request_to_read(tiny_root: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        path = await create(client, "include=timings")
        await ended(client, path)
        for line in await result(client, path):
            assert set(line["timings"]) == {"read", "decode", "queue", "infer"}

    serve(tiny_root, use)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ({"content": a_zip(IMAGES)}, list(IMAGES)),
        ({"files": files(*IMAGES.values())}, list(IMAGES)),
        ({"json": {"images": [base64.b64encode(image).decode() for image in IMAGES.values()]}}, [None] * 5),
        ({"content": a_png(0)}, [None]),
    ],
)
def test_images_come_in_every_form(tiny_root: Path, request_: dict[str, Any], names: list[str | None]) -> None:
    async def use(client: Client, _: Runtime) -> None:
        path = await create(client, "top_k=1", **request_)
        await ended(client, path)
        lines = await result(client, path)
        assert [line["name"] for line in lines] == names
        assert [line["index"] for line in lines] == list(range(len(names)))
        answer = (await client.post("/v1/classify?top_k=1", files=files(*IMAGES.values()))).json()
        assert [line["predictions"] for line in lines] == [r["predictions"] for r in answer["results"][: len(names)]]

    serve(tiny_root, use)


def test_a_new_job_is_described(tiny_root: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        response = await client.post(URL, content=a_zip(IMAGES))
        job = response.json()
        JobBody.model_validate(job)
        assert response.headers["location"] == job["links"]["self"] == f"{URL}/{job['id']}"
        assert job["links"]["result"] == f"{URL}/{job['id']}/result"
        assert (job["state"], job["images"], job["done"], job["failed"]) == ("queued", 5, 0, 0)
        assert job["expires"] is None
        assert "error" not in job
        assert await job_of(client, job["links"]["self"]) == job
        # There is no list of jobs: who knows an id knows that job.
        check_error(await client.get(URL), 405, "method_not_allowed")

    serve(tiny_root, use, start=False)


def test_results_before_the_end_are_asked_for_as_such(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        path = await create(client)
        await hold.wait_entered()
        message = check_error(await client.get(f"{path}/result"), 409, "job_not_done")
        assert "0 of 5" in message
        assert await result(client, path, "?partial=true") == []
        hold.released.set()
        await ended(client, path)
        assert await result(client, path, "?partial=true") == await result(client, path)

    serve(tiny_root, use)


def test_a_head_request_has_the_length_and_no_body(tiny_root: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        path = await create(client)
        await ended(client, path)
        head, full = await client.head(f"{path}/result"), await client.get(f"{path}/result")
        assert head.headers["content-length"] == full.headers["content-length"]
        assert head.content == b""

    serve(tiny_root, use)


@pytest.mark.parametrize("running", [False, True])
def test_removing(tiny_root: Path, tmp_path: Path, hold_model: Callable[[Runtime], Hold], running: bool) -> None:
    async def use(client: Client, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        path = await create(client)
        await hold.wait_entered()
        if not running:
            hold.released.set()
            await ended(client, path)
        response = await client.delete(path)
        assert (response.status_code, response.content) == (204, b"")
        assert "content-length" not in response.headers
        for method, url in (("GET", path), ("GET", f"{path}/result"), ("DELETE", path)):
            check_error(await client.request(method, url), 404, "unknown_job")
        hold.released.set()
        assert held(tmp_path) == []
        # The worker is free for the next.
        assert (await ended(client, await create(client)))["state"] == "done"

    serve(tiny_root, use, jobs_dir=tmp_path)


def test_a_result_that_is_removed_just_then_is_no_empty_one(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(client: Client, _: Runtime) -> None:
        path = await create(client)
        await ended(client, path)

        def removed_first(results: Path) -> Any:
            results.parent.rename(results.parent.with_name(".gone-0"))  # as a removal begins
            return whole_lines(results)

        monkeypatch.setattr(jobs, "whole_lines", removed_first)
        check_error(await client.get(f"{path}/result"), 404, "unknown_job")

    serve(tiny_root, use)


@pytest.mark.parametrize("job_id", ["0" * 32, "x", "..", "%2e%2e", "a" * 500])
def test_unknown_jobs(tiny_root: Path, job_id: str) -> None:
    async def use(client: Client, _: Runtime) -> None:
        for url in (f"{URL}/{job_id}", f"{URL}/{job_id}/result"):
            assert (await client.get(url)).json()["error"]["code"] in ("unknown_job", "not_found")

    serve(tiny_root, use)


def test_metrics(tiny_root: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        await ended(client, await create(client, content=a_zip(MIXED)))
        page = ""
        async with asyncio.timeout(30):
            while sample(page, "resnet_jobs", state="done") != 1:
                page = (await client.get("/metrics")).text
        assert sample(page, "resnet_jobs") == 1
        assert sample(page, "resnet_job_images_total", outcome="done") == 5
        assert sample(page, "resnet_job_images_total", outcome="failed") == 2
        assert sample(page, "resnet_requests_total", route="/v1/jobs/{id}", code="200") >= 1
        assert sample(page, "resnet_requests_total", route="/v1/jobs", model="tiny", code="202") == 1

    serve(tiny_root, use)


def test_jobs_can_be_turned_off(tiny_root: Path) -> None:
    async def use(client: Client, _: Runtime) -> None:
        check_error(await client.post(URL, content=a_png(1)), 404, "not_found")
        assert not any("jobs" in route for route in (await client.get("/")).json()["routes"])

    serve(tiny_root, use, jobs_max=0)


def test_examples_are_what_they_say() -> None:
    for operation in (CREATE, SHOW):
        for example in operation.examples.values():
            JobBody.model_validate(example)
    for line in RESULT.examples["two images"].splitlines():
        assert set(orjson.loads(line)) > {"name", "index"}
    assert REMOVE.answers == {204: {}}
