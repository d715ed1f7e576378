"""The machine fails under the service: full disks, a read-only root, no file descriptors left, a clock that jumps.

    python -m tests.reliability.machine
    python -m tests.reliability.machine tmp clock

Each time inference goes on or is refused clearly, and readiness says what is true. Needs root, as the service is
started in a mount namespace of its own. What cannot be tried here is said, and is no promise broken.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import httpx

from benchmarks.report import Report
from benchmarks.server import HOST, Server, total
from model_store.store import EMBEDDED_MODELS, ModelStore, StoreError
from tests.end_to_end.conftest import until
from tests.reliability.clients import SETTINGS, Connection, images
from tests.reliability.harness import figures, instances, none_of, program

FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
DAYS_30_S: Final = 30 * 24 * 3600


class Broken(AssertionError):
    """A promise was; the message says which."""


def check(held: bool, promise: str) -> None:
    if not held:
        raise Broken(promise)


def why_not(name: str) -> str:
    """Why the scenario cannot be played here; empty where it can."""
    if name == "clock":
        return "" if FAKETIME.is_file() else "libfaketime is not there; on Debian: apt-get install faketime"
    if name == "descriptors":
        return ""
    if name in ("tmp", "read-only") and Path(sys.executable).is_relative_to("/tmp"):  # noqa: S108
        return "the programs lie in /tmp, over which it mounts another"
    tried = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "mount -t tmpfs none /mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no mounts here: {tried.stderr.strip()}" if tried.returncode else ""


Settings = Mapping[str, str]


@contextmanager
def service(given: Settings, *mounts: str, **settings: str) -> Iterator[Server]:
    """A ready service that sees ``mounts``, made in a namespace of its own; what is ``given`` prevails."""
    script = " && ".join([*mounts, 'exec "$@"'])
    with instances(1, **{**SETTINGS, **settings, **given}) as (server,):
        server.start(*(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"] if mounts else []))
        server.wait_ready()
        yield server


def seen_by(server: Server, path: str) -> Path:
    """``path`` as the service sees it."""
    return Path(f"/proc/{server.process.pid}/root{path}")


def fill(folder: Path) -> None:
    """Leave no byte and no file's room in ``folder``."""
    with (folder / "full").open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    try:
        for number in range(10**6):
            (folder / f"full.{number}").touch()
    except OSError:
        return


def answers(server: Server, count: int = 20) -> int:
    """How many of ``count`` images on new connections are answered rightly."""

    async def ask() -> int:
        right = 0
        for image in images()[:count]:
            connection = await Connection.to(server.port)
            status, body = await connection.ask(image.request)
            connection.close()
            right += status == 200 and image.is_answered_by(body)
        return right

    return asyncio.run(ask())


def serves_on(server: Server) -> None:
    check(answers(server) == 20, "all images are answered rightly")
    check(server.readiness == 200, "the service is ready")
    check(httpx.get(f"{server.url}/metrics", timeout=30).status_code == 200, "the metrics have a page")


def replaced(server: Server) -> None:
    """A worker that dies now is replaced, too."""
    (victim,) = server.workers()
    victim.kill()
    until(lambda: [worker for worker in server.workers() if worker != victim], "another worker", pause_s=0.1)
    until(lambda: server.readiness == 200, "readiness", pause_s=0.1)
    serves_on(server)


def full_tmp(given: Settings) -> Mapping[str, Any]:
    """All of ``/tmp``, where the workers' shared folder and the jobs are."""
    with service(given, "mount -t tmpfs -o size=48m,nr_inodes=2000 none /tmp", TMPDIR="/tmp") as server:  # noqa: S108
        fill(seen_by(server, "/tmp"))  # noqa: S108
        serves_on(server)
        job = httpx.post(f"{server.url}/v1/jobs", content=images()[0].data, timeout=30)
        check(job.status_code == 507, f"a job is refused for want of room, not {job.status_code}: {job.text[:200]}")
        replaced(server)
        told = "no room for shared metrics" in server.log
        check(told, "the log says that metrics are not shared")
        return {"images": "answered", "a job": "507", "a worker that dies": "replaced", "metrics": "each worker's own"}


def full_run_dir(given: Settings) -> Mapping[str, Any]:
    """``RESNET_RUN_DIR`` with too little room for the metrics, from the start."""
    with (
        tempfile.TemporaryDirectory() as folder,
        service(
            given, f"mount -t tmpfs -o size=256k none {folder}", RESNET_RUN_DIR=folder, RESNET_WORKERS="2"
        ) as server,
    ):
        check("no room for shared metrics" in server.log, "the log says that metrics are not shared")
        serves_on(server)
    return {"images": "answered", "metrics": "each worker's own, the log says so"}


def full_store(given: Settings) -> Mapping[str, Any]:
    """A version is published where there is no room for it."""
    with tempfile.TemporaryDirectory() as folder:
        size_kib = sum(path.stat().st_size for path in EMBEDDED_MODELS.rglob("*") if path.is_file()) * 3 // 2 // 1024
        mounts = (
            f"mount -t tmpfs -o size={size_kib}k,nr_inodes=2000 none {folder}",
            f"cp -r {EMBEDDED_MODELS}/. {folder}",
        )
        with service(given, *mounts, RESNET_MODEL_STORE=folder, RESNET_WATCH_S="0.2") as server:
            store = ModelStore(seen_by(server, folder))
            name = store.names()[0]
            before = store.versions(name)
            try:
                with store.staging() as staged:
                    shutil.copytree(store.resolve(name).folder, staged / "4")
                    raise Broken("the disk is too large")
            except (OSError, StoreError) as error:
                told = str(error)
            check(store.versions(name) == before, "no version is half there")
            check(not list(store.root.glob(".staging-*")), "nothing is left of it")
            fill(store.root)
            serves_on(server)
    return {"publishing": told[-60:], "left of it": "nothing", "images": "answered"}


def read_only_root(given: Settings) -> Mapping[str, Any]:
    """As in a container with ``--read-only --tmpfs /tmp``."""
    mounts = "mount -t tmpfs none /tmp", "mount -o remount,bind,ro /"
    with service(given, *mounts, TMPDIR="/tmp", BENTOML_HOME="/tmp/bentoml") as server:  # noqa: S108
        flags = os.statvfs(seen_by(server, "/")).f_flag
        check(bool(flags & os.ST_RDONLY), "the root is read-only")
        serves_on(server)
        replaced(server)
    return {"start": "as ever", "images": "answered", "a worker that dies": "replaced"}


def descriptors(given: Settings) -> Mapping[str, Any]:
    """More connections than the worker has file descriptors for."""
    with service(given) as server:
        (worker,) = server.workers()
        with httpx.Client(base_url=server.url, timeout=30) as kept:
            check(kept.get("/readyz").status_code == 200, "ready before")
            hard = worker.rlimit(resource.RLIMIT_NOFILE)[1]
            worker.rlimit(resource.RLIMIT_NOFILE, (worker.num_fds() + 4, hard))
            crowd = [socket.create_connection((HOST, server.port), timeout=10) for _ in range(40)]
            until(lambda: worker.num_fds() >= worker.rlimit(resource.RLIMIT_NOFILE)[0] - 1, "the last descriptor")
            for image in images()[:20]:
                answer = kept.post("/v1/classify", content=image.data)
                check(answer.status_code == 200 and image.is_answered_by(answer.content), "a kept connection is served")
            check(kept.get("/readyz").status_code == 200, "it says that it is ready, as it is for those it has")
            metrics = kept.get("/metrics").status_code
            for one in crowd:
                one.close()
        until(lambda: server.readiness == 200, "a new connection once there is room")
        check([found.pid for found in server.workers()] == [worker.pid], "the worker lives on")
        serves_on(server)
    return {"kept connections": "served", "/metrics meanwhile": metrics, "new ones, once there is room": "served"}


def clock(given: Settings) -> Mapping[str, Any]:
    """The wall clock jumps by a month, forth and back, while images are answered."""
    with tempfile.TemporaryDirectory() as folder:
        now = Path(folder) / "now"
        now.write_text("+0")
        fake = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(now), "FAKETIME_NO_CACHE": "1"}
        with service(
            given, **fake, FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1", RESNET_DEADLINE_S="60"
        ) as server:
            began = total(server.metrics(), "resnet_process_start_time_seconds")
            serves_on(server)
            for jump in (DAYS_30_S, -DAYS_30_S):
                now.write_text(f"{jump:+d}")
                serves_on(server)
                shown = total(server.metrics(), "resnet_last_success_timestamp_seconds")
                jumped = shown - began > DAYS_30_S / 2
                check(jumped, "the service saw the jump")  # and the latest success stays the latest
            replaced(server)
            latencies_s = total(server.metrics(), "resnet_request_seconds_sum")
            check(0 < latencies_s < 3600, "no latency is a month long")
    return {"forth and back by": "30 days", "images": "answered", "deadlines": "none met early or late"}


SCENARIOS: Final[Mapping[str, Callable[[Settings], Mapping[str, Any]]]] = {
    "tmp": full_tmp,
    "run-dir": full_run_dir,
    "store": full_store,
    "read-only": read_only_root,
    "descriptors": descriptors,
    "clock": clock,
}


def run(report: Report, name: str, settings: Settings) -> None:
    """Play a scenario; what it came to and whether its promises held is put into ``report``."""
    scenario, failure = SCENARIOS[name], ""
    found: Mapping[str, Any] = {}
    try:
        found = scenario(settings)
    except Broken as broken:
        failure = str(broken)
    if found:
        figures(report, f"{name}: {(scenario.__doc__ or '').splitlines()[0]}", found)
    report.hold([none_of(f"{name}: promises broken", float(bool(failure)), failure)])


@program
@click.argument("names", nargs=-1, type=click.Choice(list(SCENARIOS)))
def main(settings: dict[str, str], names: tuple[str, ...]) -> Report:
    report = Report("reliability.machine")
    for name in names or SCENARIOS:
        if reason := why_not(name):
            report.notes.append(f"{name}: not tried: {reason}")
        else:
            run(report, name, settings)
    return report


if __name__ == "__main__":
    main()
