"""/v1/jobs in one process: what comes in, what is told, what comes out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from service.http import jobs
from service.http.api import Api
from service.http.job_operations import CREATE, REMOVE, RESULT, SHOW, JobBody
from service.inference.session import Session
from service.jobs.claims import Claim
from service.jobs.results import whole_lines
from service.jobs.runner import Runner
from service.runtime import Runtime
from tests.service.conftest import Hold, a_png, eventually, publish_tiny, serving, some_settings
from tests.service.http.conftest import Exchange, check_error, files, sample
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


def test_a_jobs_model_is_fixed_when_it_is_accepted(tmp_path: Path) -> None:
    publish_tiny(tmp_path, version="1")
    publish_tiny(tmp_path, version="2")

    async def use(client: Client, _: Runtime) -> None:
        for query, version in (("version=2", "2"), ("model=tiny&version=1", "1"), ("model=tiny", "2")):
            path = await create(client, query)
            assert (await ended(client, path))["model"] == {"name": "tiny", "version": version}

    serve(tmp_path, use, models="tiny@1,tiny@2")


def test_a_job_whose_model_is_gone_after_a_restart_fails(tmp_path: Path) -> None:
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
    serve(tmp_path / "models", second, models="tiny@2", jobs_dir=kept)


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


def test_examples_are_what_they_say() -> None:
    for operation in (CREATE, SHOW):
        for example in operation.examples.values():
            JobBody.model_validate(example)
    for line in RESULT.examples["two images"].splitlines():
        assert set(orjson.loads(line)) > {"name", "index"}
    assert REMOVE.answers == {204: {}}
