"""/v1/jobs over the real service: workers that die, a service that restarts, clients that leave."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.end_to_end.conftest import Server, picture
from tests.end_to_end.test_operation import start_and_fail

Serve = Callable[..., AbstractContextManager[Server]]

LIMIT_S = 300
PICTURES = [picture(seed, (64, 48)) for seed in range(10)]
# One image at a time: jobs that last until the test has done to them what it wants to.
SLOWLY = {"RESNET_PRECISION": "fp32", "RESNET_JOBS_WIDTH": "1"}
LONG = 1000


def archive(names: list[str], **others: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for number, name in enumerate(names):
            made.writestr(name, PICTURES[number % 10])
        for name, data in others.items():
            made.writestr(name, data)
    return file.getvalue()


def names(count: int) -> list[str]:
    return [f"photos/{number}.jpg" for number in range(count)]


def until(server: Server, path: str, state: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The job once ``state`` holds; a connection each, so that any worker may answer."""
    limit = time.monotonic() + LIMIT_S
    with httpx.Client(base_url=server.url, headers={"connection": "close"}, timeout=30) as client:
        while time.monotonic() < limit:
            job: dict[str, Any] = client.get(path).raise_for_status().json()
            if state(job):
                return job
            time.sleep(0.01)  # leaves the cores to the job
    pytest.fail(f"the job never got there: {job}")


def is_over(job: dict[str, Any]) -> bool:
    return job["state"] in ("done", "failed")


def lines(server: Server, path: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{server.url}{path}/result").raise_for_status()
    return [json.loads(line) for line in answer.text.splitlines()]


def create(server: Server, body: bytes, query: str = "top_k=1") -> str:
    answer = httpx.post(f"{server.url}/v1/jobs?{query}", content=body, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def create_running(server: Server, following: int = 0) -> tuple[list[str], list[int]]:
    """Jobs of which the first was seen in its middle, and their images: ``following`` images are the second's.

    How long that takes is the machine's to say: a job that was over before it was looked at is followed by a longer.
    """
    for count in (LONG, 4 * LONG, 16 * LONG):
        counts = [count, following] if following else [count]
        paths = [create(server, archive(names(images))) for images in counts]
        if until(server, paths[0], lambda job: job["done"] > 0)["done"] < count:
            return paths, counts
    pytest.fail(f"a job of {count} images was over before it was looked at")


def check_complete(server: Server, path: str, count: int) -> None:
    """Each image has one line, in order, and they are what ``/v1/classify`` says."""
    found = lines(server, path)
    assert [(line["index"], line["name"]) for line in found] == list(enumerate(names(count)))
    for number in (0, count // 2, count - 1):
        answer = httpx.post(f"{server.url}/v1/classify?top_k=1", content=PICTURES[number % 10]).json()
        (expected,), (got,) = answer["results"][0]["predictions"], found[number]["predictions"]
        assert (got["label"], got["index"]) == (expected["label"], expected["index"])
        assert got["probability"] == pytest.approx(expected["probability"], abs=1e-4)


def worker_of(server: Server, jobs_dir: Path) -> psutil.Process:
    """The worker that holds a job's claim."""
    workers = server.workers()
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        for worker in workers:
            if any(Path(file.path).parent.parent == jobs_dir for file in worker.open_files()):
                return worker
    pytest.fail("no worker runs a job")


def test_an_archives_lines_are_what_classify_answers(server: Server) -> None:
    body = archive(names(12), **{"notes.txt": b"no image"})
    path = create(server, body, "top_k=3")
    job = until(server, path, is_over)
    assert (job["state"], job["images"], job["done"], job["failed"]) == ("done", 13, 13, 1)
    files = [("image", (name, PICTURES[number % 10])) for number, name in enumerate(names(12))]
    files.append(("image", ("notes.txt", b"no image")))
    answer = httpx.post(f"{server.url}/v1/classify?top_k=3", files=files, timeout=60).json()
    for line, expected in zip(lines(server, path), answer["results"], strict=True):
        if "error" in expected:
            assert line["error"] == expected["error"]
        else:
            assert [p["label"] for p in line["predictions"]] == [p["label"] for p in expected["predictions"]]
            assert [p["probability"] for p in line["predictions"]] == pytest.approx(
                [p["probability"] for p in expected["predictions"]], abs=1e-4
            )
    httpx.delete(server.url + path).raise_for_status()
    assert httpx.get(server.url + path).status_code == 404


def test_removing_a_running_job_frees_its_worker(server: Server) -> None:
    path = create(server, archive(names(2 * LONG)))
    until(server, path, lambda job: job["state"] == "running")
    assert httpx.delete(server.url + path).status_code == 204
    assert httpx.get(f"{server.url}{path}/result").status_code == 404
    following = create(server, archive(names(3)))
    assert until(server, following, is_over)["state"] == "done"


def test_a_client_may_leave_in_the_middle_of_a_result(server: Server) -> None:
    path = create(server, archive(names(300)), "include=embedding")
    until(server, path, is_over)
    with httpx.stream("GET", f"{server.url}{path}/result") as answer:
        next(answer.iter_lines())
    assert len(lines(server, path)) == 300


@pytest.mark.slow
def test_a_killed_workers_job_is_finished_by_another(serve: Serve, tmp_path: Path) -> None:
    with serve(workers=2, RESNET_JOBS_DIR=str(tmp_path), **SLOWLY) as server:
        (path,), (count,) = create_running(server)
        worker_of(server, tmp_path).kill()
        job = until(server, path, is_over)
        assert (job["state"], job["done"], job["failed"]) == ("done", count, 0)
        check_complete(server, path, count)
        server.wait_for_line("ready after")  # the one in its place


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_jobs_go_on_after_a_restart(serve: Serve, tmp_path: Path, killed: bool) -> None:
    settings = {"RESNET_JOBS_DIR": str(tmp_path), **SLOWLY}
    with serve(**settings) as server:
        paths, counts = create_running(server, following=5)
        if killed:
            parent = psutil.Process(server.process.pid)
            for process in [parent, *parent.children(recursive=True)]:
                process.kill()
        else:
            assert server.stop() == 0
    with serve(**settings) as server:
        for path, count in zip(paths, counts, strict=True):
            job = until(server, path, is_over)
            assert (job["state"], job["done"], job["failed"]) == ("done", count, 0)
            check_complete(server, path, count)


@pytest.mark.slow
def test_two_workers_share_the_work_and_know_it_all(serve: Serve, tmp_path: Path) -> None:
    with serve(workers=2, RESNET_JOBS_DIR=str(tmp_path), **SLOWLY) as server:
        paths = [create(server, archive(names(200))) for _ in range(4)]
        for path in paths:
            assert until(server, path, is_over)["state"] == "done"
            check_complete(server, path, 200)
        kept = {entry.name for entry in tmp_path.iterdir()} - {".lock"}
        assert kept == {path.rpartition("/")[2] for path in paths}


def test_a_jobs_dir_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "RESNET_JOBS_DIR" in start_and_fail(RESNET_JOBS_DIR=str(tmp_path / "file" / "below"))
