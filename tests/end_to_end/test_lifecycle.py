"""Models that come and go while the real service runs and clients send."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.manifest import MANIFEST_FILE
from model_store.store import EMBEDDED_MODELS, ModelStore
from tests.end_to_end.conftest import ROOT, Server, picture, until

pytestmark = pytest.mark.slow

Serve = Callable[..., AbstractContextManager[Server]]
NAME = "cifar10-resnet16"
KEY = "a-key-of-the-administrator"


def publish(store: Path, version: str) -> None:
    """The embedded model under another number, whole or not at all, as an export would."""
    source = ModelStore(EMBEDDED_MODELS).resolve(NAME).folder
    with ModelStore(store).staging() as staged:
        folder = shutil.copytree(source, staged / version)
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
        (folder / MANIFEST_FILE).write_text(json.dumps(manifest | {"version": version}))
        (store / NAME).mkdir(exist_ok=True)
        folder.replace(store / NAME / version)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish(tmp_path, "1")
    return tmp_path


def promote(store: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "export", "promote", *words, "--store", str(store)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Load:
    """What clients that send one image after the other were answered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count()
        self.versions: list[str] = []
        self.failures: list[Any] = []
        self.stopping = False

    def client(self) -> None:
        while not self.stopping:
            try:
                # A connection each, so that all workers have some.
                answer = httpx.post(f"{self._url}/v1/classify", content=picture(next(self._numbers) % 20), timeout=60)
                answer.raise_for_status()
                self.versions.append(answer.json()["model"]["version"])
            except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
                self.failures.append(error)

    def answered_by(self, version: str, times: int = 20) -> bool:
        """Whether the last answers are all of ``version``."""
        last = self.versions[-times:]
        return len(last) == times and set(last) == {version}


@contextmanager
def constant_load(server: Server, clients: int = 3) -> Iterator[Load]:
    load = Load(server.url)
    threads = [threading.Thread(target=load.client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopping = True
        for thread in threads:
            thread.join()
    assert not load.failures


@pytest.mark.parametrize("workers", [1, 2])
def test_versions_take_over_and_go_back_without_a_failure(serve: Serve, store: Path, workers: int) -> None:
    with (
        serve(workers=workers, RESNET_MODEL_STORE=str(store), RESNET_WATCH_S="0.2") as server,
        constant_load(server) as load,
    ):
        until(lambda: load.answered_by("1"), "an answer of version 1")
        publish(store, "2")
        until(lambda: load.answered_by("2"), "version 2")
        server.wait_for_line(f"model {NAME} version 1: drained and closed", workers)
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        assert ['version="2"' in line for line in lines if line.startswith("resnet_model_info{")] == [True]
        promote(store, f"{NAME}@1")
        until(lambda: load.answered_by("1"), "the way back")
        promote(store, f"{NAME}@2", "--alias", "canary")

        def canary_answers() -> bool:
            asked = [httpx.post(f"{server.url}/v1/classify?version=canary", content=picture(1)) for _ in range(10)]
            return {a.status_code for a in asked} == {200} and {a.json()["model"]["version"] for a in asked} == {"2"}

        until(canary_answers, "the canary")
        assert load.answered_by("1")
    assert set(load.versions) == {"1", "2"}


def test_a_broken_version_is_shown_and_the_old_one_stays(serve: Serve, store: Path) -> None:
    with serve(RESNET_MODEL_STORE=str(store), RESNET_WATCH_S="0.2") as server, constant_load(server) as load:
        with ModelStore(store).staging() as staged:
            folder = shutil.copytree(store / NAME / "1", staged / "2")
            manifest = json.loads((folder / MANIFEST_FILE).read_text())
            (folder / MANIFEST_FILE).write_text(json.dumps(manifest | {"version": "2"}))
            weights = folder / manifest["variants"][0]["file"]
            weights.write_bytes(weights.read_bytes()[:-1])
            folder.replace(store / NAME / "2")
        server.wait_for_line(f"model {NAME} version 2 cannot be loaded")
        (failed,) = httpx.get(f"{server.url}/v1/models").json()["failed"]
        assert (failed["name"], failed["version"]) == (NAME, "2")
        assert str(store) not in failed["reason"]
        answered = len(load.versions)
        until(lambda: len(load.versions) > answered + 20, "more answers")
        assert set(load.versions) == {"1"}
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_an_administrator_reaches_all_workers(serve: Serve, store: Path) -> None:
    with serve(workers=2, RESNET_MODEL_STORE=str(store), RESNET_WATCH_S="0", RESNET_ADMIN_KEY=KEY) as server:
        repository = f"{server.url}/v2/repository"
        assert httpx.post(f"{repository}/index").status_code == 401
        headers = {"authorization": f"Bearer {KEY}"}
        (row,) = httpx.post(f"{repository}/index", headers=headers).json()
        assert row == {"name": NAME, "version": "1", "state": "READY", "reason": ""}

        def statuses() -> set[int]:
            return {httpx.post(f"{server.url}/v1/classify", content=picture(1)).status_code for _ in range(10)}

        assert httpx.post(f"{repository}/models/{NAME}/unload", headers=headers).status_code == 200
        server.wait_for_line(f"model {NAME} version 1: drained and closed", 2)
        until(lambda: statuses() == {404}, "the end of the model in all workers")
        publish(store, "2")
        assert httpx.post(f"{repository}/models/{NAME}/load", headers=headers, timeout=60).status_code == 200
        server.wait_for_line(f"model {NAME} version 2: ", 2)
        until(lambda: statuses() == {200}, "the model in all workers")
        assert httpx.post(f"{server.url}/v1/classify", content=picture(1)).json()["model"]["version"] == "2"
        server.stop()
    assert KEY not in "".join(server.log)


def test_without_a_key_the_repository_is_closed(client: httpx.Client) -> None:
    answer = client.post("/v2/repository/index", headers={"authorization": f"Bearer {KEY}"})
    assert (answer.status_code, answer.json()) == (403, {"error": "closed: RESNET_ADMIN_KEY is not set"})
