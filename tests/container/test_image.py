"""The image at work, restricted as docker/compose.yaml does: it serves, is scraped, drains, survives."""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.container.conftest import COMPOSE, PYTHON, Container, Create, documented, hardening
from tests.container.engine import ROOT
from tests.end_to_end.conftest import Reference, picture, until
from tests.end_to_end.test_lifecycle import publish
from tests.end_to_end.test_prometheus import scraping
from tests.openvino import need_openvino, openvino_runs

pytestmark = pytest.mark.container

SHIP = ROOT / "docs" / "images" / "ship.jpg"
# Process ids of workers, and of what has ended and was not reaped.
WORKERS = """
import json, os, pathlib
found = {"workers": [], "zombies": []}
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if int(process.name) == os.getpid():  # these words name workers, too
        continue
    try:
        worker = b"_bentoml_impl.worker" in (process / "cmdline").read_bytes()
        zombie = "State:\\tZ" in (process / "status").read_text()
    except OSError:
        continue
    found["workers"] += [int(process.name)] * (worker and not zombie)
    found["zombies"] += [int(process.name)] * zombie
print(json.dumps(found))
"""


def classify(container: Container, data: bytes, query: str = "") -> httpx.Response:
    return httpx.post(f"{container.url}/v1/classify{query}", content=data, timeout=60)


def samples(container: Container) -> dict[str, float]:
    lines = httpx.get(f"{container.url}/metrics", timeout=30).text.splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}


def processes(container: Container) -> dict[str, set[int]]:
    return {kind: set(ids) for kind, ids in json.loads(container.run(*PYTHON, WORKERS)).items()}


@pytest.fixture(scope="module")
def shared(create: Create) -> Iterator[Container]:
    """One with two workers, which several tests ask."""
    with create(RESNET_WORKERS="2") as container:
        container.start()
        yield container


def test_it_serves_a_photo_as_what_it_is(shared: Container) -> None:
    answer = classify(shared, SHIP.read_bytes()).raise_for_status().json()
    assert answer["results"][0]["predictions"][0]["label"] == "ship"
    (model,) = httpx.get(f"{shared.url}/v1/models", timeout=30).json()["models"]
    assert model["provider"] == ("openvino" if platform.machine() == "x86_64" and openvino_runs() else "cpu")


def test_it_has_no_rights_and_writes_nowhere_but_tmp(shared: Container) -> None:
    status = dict(line.split(":\t", 1) for line in shared.run("cat", "/proc/1/status").splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert shared.succeeds("touch", "/tmp/here")  # noqa: S108 - the container's
    for place in ("/app/here", "/opt/venv/here", "/var/tmp/here", "/run/here"):  # noqa: S108
        assert not shared.succeeds("touch", place), place


def test_the_restrictions_are_those_of_the_documents() -> None:
    command = documented("docker run -d --name resnet ")
    for option in hardening():
        assert option in command, f"docs/deployment.md lacks {option} of {COMPOSE.name}"


def test_its_health_check(shared: Container) -> None:
    assert shared.engine.code("healthcheck", "run", shared.name) == 0


def test_the_client_works_inside(shared: Container) -> None:
    command = ("predict", "service/web/ship.jpg", "--url", shared.url, "--format", "ndjson")
    (line,) = shared.run("python", "-m", "service", "client", *command).splitlines()
    assert json.loads(line)["predictions"][0]["label"] == "ship"


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_a_prometheus_scrapes_it(shared: Container, tmp_path: Path) -> None:
    classify(shared, SHIP.read_bytes()).raise_for_status()
    with scraping(shared.url, tmp_path) as prometheus:
        until(lambda: prometheus.query('up{job="resnet-serving"} == 1'), "a scrape")
        assert float(prometheus.query("resnet_workers_ready")[0]["value"][1]) == 2


def test_orphans_are_reaped(shared: Container) -> None:
    shared.run("sh", "-c", "(sleep 0.1 &)")
    until(lambda: not processes(shared)["zombies"], "the end of all zombies")


def test_a_killed_worker_comes_back(shared: Container) -> None:
    before = processes(shared)["workers"]
    assert len(before) == 2
    victim = max(before)
    shared.run(*PYTHON, f"import os; os.kill({victim}, 9)")  # there is no program for it
    until(lambda: len(now := processes(shared)["workers"]) == 2 and victim not in now, "another worker")
    until(lambda: samples(shared)["resnet_workers_ready"] == 2, "two ready workers")
    for seed in range(8):
        assert classify(shared, picture(seed)).status_code == 200


def test_what_was_accepted_is_answered_when_it_stops(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    async def stop_under_load(container: Container) -> tuple[int, int, list[int]]:
        data = picture(1, (2000, 2000))
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=24)) as client:
            asked = f"{container.url}/v1/classify"
            tasks = [asyncio.create_task(client.post(asked, content=data)) for _ in range(24)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            held = int((await asyncio.to_thread(samples, container))["resnet_images_held"])
            done = sum(task.done() for task in tasks)
            code = await asyncio.to_thread(container.stop)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        statuses = [outcome.status_code for outcome in outcomes if isinstance(outcome, httpx.Response)]
        return code, max(held, done), statuses

    with create() as container:
        seconds = container.start()
        with capsys.disabled():
            print(f"\nfrom start to ready: {seconds:.1f} s")
        code, least, statuses = asyncio.run(stop_under_load(container))
    assert code == 0
    assert statuses.count(200) >= least >= 1
    assert set(statuses) <= {200, 503}  # 503: refused, not lost


def test_a_stop_at_once_is_not_overheard(create: Create) -> None:
    """Python as the first process would not have its handler yet, and be killed after the whole grace."""
    with create() as container:
        container.engine.podman("start", container.name)
        assert container.stop() in (0, 143)  # 143: ended by SIGTERM


def test_a_full_disk_stops_no_inference(create: Create) -> None:
    small = [word.replace("size=256m", "size=2m") for word in hardening()]
    fill = "dd if=/dev/zero of=/tmp/full bs=4k 2>/dev/null; rm -f /tmp/none; df -k /tmp | tail -1"
    with create(restrictions=small, RESNET_JOBS_DIR="/tmp/jobs") as container:  # noqa: S108 - the container's
        assert small != hardening()
        container.start()
        assert " 100% " in container.run("sh", "-c", fill)
        assert classify(container, SHIP.read_bytes()).status_code == 200
        refused = httpx.post(f"{container.url}/v1/jobs", content=SHIP.read_bytes(), timeout=30)
        assert refused.status_code in (503, 507), refused.text
        assert refused.json()["error"]["message"]
        assert container.ready()
        assert classify(container, SHIP.read_bytes()).status_code == 200
        assert container.stop() == 0


def test_without_a_place_to_write_the_start_ends_and_says_so(create: Create) -> None:
    given = hardening()
    place = given.index("--tmpfs")
    with create(restrictions=given[:place] + given[place + 2 :]) as container:
        container.engine.podman("start", container.name)
        until(lambda: not container.running(), "the end", pause_s=0.2)
        assert container.state()["ExitCode"] not in (0, 137)
        assert "/tmp" in container.logs().splitlines()[-1]  # noqa: S108 - the container's


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_another_store_by_volume(create: Create, tmp_path: Path, provider: str) -> None:
    """Read-only, on either provider, with the answers that ONNX Runtime gives when it is called directly."""
    if provider == "openvino":
        need_openvino()
    store = tmp_path / "models"
    store.mkdir(mode=0o755)
    publish(store, "7")
    volume = ("--volume", f"{store}:/models:ro")
    settings = {"RESNET_MODEL_STORE": "/models", "RESNET_PROVIDER": provider, "RESNET_PRECISION": "fp32"}
    with create(*volume, **settings) as container:
        container.start()
        answer = classify(container, data := picture(3), "?top_k=10").raise_for_status().json()
        assert answer["model"]["version"] == "7"
        (model,) = httpx.get(f"{container.url}/v1/models", timeout=30).json()["models"]
        assert model["provider"] == provider
    from model_store.store import ModelStore

    Reference(ModelStore(store).resolve("cifar10-resnet16")).check(answer["results"][0]["predictions"], data)
