"""A store at a URL, followed by a service."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.locations import StoreUnreachable, open_store
from model_store.manifest import MANIFEST_FILE
from model_store.remote import RemoteStore
from model_store.store import ModelStore, StoreError
from service.http.api import Api
from service.metrics import Metrics
from service.models.mirror import LEADER_FILE, Mirror
from service.runtime import Runtime, check_start
from tests.model_store.flaky import URL, FlakyFileSystem, flaky
from tests.service.conftest import eventually, some_settings
from tests.service.models.conftest import answers, publish, serve, served

KEY = "k" * 16


@dataclass
class Site:
    """A store at a URL: its files, what publishes to it, and the settings of a service over it."""

    files: type[FlakyFileSystem]
    store: RemoteStore
    cache: Path
    models: Path

    def publish(self, version: str, name: str = "tiny") -> None:
        publish(self.models, version, name)
        made = ModelStore(self.models).resolve(name, version)
        with self.store.staging() as staged:
            for file in made.manifest.files:
                shutil.copyfile(made.path(file), staged / file.file)
            self.store.publish(staged, made.manifest)

    def settings(self, **environ: object) -> Any:
        return some_settings(Path("unused"), **{"model_store": URL, "store_cache": self.cache, "watch_s": 0, **environ})

    def mirror(self, **environ: object) -> Mirror:
        return Mirror(self.settings(**environ).store)

    def mirrored(self) -> list[str]:
        return ModelStore(self.folder).versions("tiny")

    @property
    def folder(self) -> Path:
        folder: Path = self.settings().store.folder
        return folder

    def damage(self, version: str) -> None:
        path = f"/store/models/tiny/{version}/labels.txt"
        data = bytes(self.files.store[path].getvalue())
        self.files(use_listings_cache=False).pipe_file(path, data.swapcase())

    def serve(self, use: Any, **environ: object) -> None:
        check_start(self.settings(**environ))
        serve(Path("unused"), use, **{"model_store": URL, "store_cache": self.cache, **environ})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """With version 1 of a model."""
    with flaky() as files:
        store = open_store(URL, tmp_path / "publisher")
        assert isinstance(store, RemoteStore)
        made = Site(files, store, tmp_path / "cache", tmp_path / "models")
        made.publish("1")
        yield made


_START_WITHOUT_A_URL = """
import sys
from service.config import load_settings
from service.runtime import check_start
check_start(load_settings())
assert not {"fsspec", "s3fs", "aiohttp", "model_store.remote"} & set(sys.modules)
"""


def test_a_folder_needs_none_of_this() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _START_WITHOUT_A_URL], cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_has_no_mirror(tmp_path: Path) -> None:
    assert Mirror.of(some_settings(tmp_path).store) is None
    assert Mirror.of(some_settings(tmp_path, model_store=f"file://{tmp_path}").store) is None


def test_a_service_starts_from_a_url_and_follows_it(site: Site) -> None:
    async def use(runtime: Runtime) -> None:
        assert served(runtime) == [("tiny", "1")]
        site.publish("2")
        await eventually(lambda: answers(runtime) == "2", "the new version")
        site.store.promote("tiny", "1")
        await eventually(lambda: answers(runtime) == "1", "the promoted version")
        site.store.promote("tiny", "2")
        site.store.remove("tiny", "1")
        await eventually(lambda: answers(runtime) == "2", "the version that is left")
        await eventually(lambda: site.mirrored() == ["2"], "the end of the removed version")

    site.serve(use, watch_s=0.01)


def test_only_what_is_served_is_fetched(site: Site) -> None:
    for version in ("2", "3", "4"):
        site.publish(version)
    site.publish("1", "other")
    site.store.promote("tiny", "2")
    site.store.set_alias("tiny", "canary", "3")
    site.mirror(models="tiny").begin()
    assert site.mirrored() == ["2", "3"]
    assert ModelStore(site.folder).names() == ["tiny"]
    site.mirror(models="tiny", version_policy="latest:2").begin()
    assert site.mirrored() == ["2", "3", "4"]


def test_without_a_store_or_a_cache_nothing_starts(site: Site) -> None:
    site.files.broken.add("find")
    with pytest.raises(StoreUnreachable, match=rf"^{URL}: the store cannot be used: the line is cut$"):
        check_start(site.settings())


def test_an_empty_store_is_none(site: Site) -> None:
    site.mirror().begin()
    site.store.remove("tiny", "1")
    with pytest.raises(StoreUnreachable, match="the store has no model"):
        site.mirror()._sync()
    assert site.mirrored() == ["1"], "rather a mistake than a wish"


def test_a_cache_is_enough(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.mirror().begin()
    site.files.broken.add("find")

    async def use(runtime: Runtime) -> None:
        assert served(runtime) == [("tiny", "1")]

    site.serve(use)
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "the line is cut; what was fetched earlier is served" in warning.getMessage()


def test_an_outage_is_told_once_and_asked_less_and_less(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(None)
    mirror = Mirror(site.settings(watch_s=4).store, None, metrics)
    mirror.begin()
    assert 3 <= mirror.pause_s <= 4
    site.files.broken.add("find")
    caplog.set_level(logging.INFO)
    for _ in range(3):
        mirror.sync()
    assert len(caplog.records) == 1
    assert 24 <= mirror.pause_s <= 32
    for _ in range(2000):
        mirror._failures += 1
    assert 225 <= mirror.pause_s <= 300
    assert f'resnet_store_reachable{{store="{URL}"}} 0.0' in metrics.page().decode()
    assert len({mirror.pause_s for _ in range(5)}) > 1, "a fleet does not ask at once"
    site.files.broken.clear()
    site.publish("2")
    mirror.sync()
    assert site.mirrored() == ["1", "2"]
    assert 3 <= mirror.pause_s <= 4
    assert caplog.records[-1].getMessage() == f"{URL}: the store answers again"
    assert f'resnet_store_reachable{{store="{URL}"}} 1.0' in metrics.page().decode()


def test_a_fault_of_ours_does_not_end_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = site.mirror()
    monkeypatch.setattr(RemoteStore, "index", lambda self: 1 / 0)
    mirror.sync()
    assert "ZeroDivisionError" in caplog.text


def test_a_tampered_version_never_serves(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def use(runtime: Runtime) -> None:
        site.files.broken.add("find")  # so that nobody looks in between
        site.publish("2")
        site.damage("2")
        site.files.broken.clear()
        site.store.set_alias("tiny", "canary", "1")
        await eventually(lambda: "version 2 is not fetched" in caplog.text, "the refusal")
        await eventually(lambda: "canary" in runtime.lifecycle.status["tiny"].view.aliases, "the alias")  # type: ignore[union-attr]
        assert answers(runtime) == "1"
        assert caplog.text.count("version 2 is not fetched") == 1, "not fetched at every look"
        assert 'resnet_model_loads_total{model="tiny",outcome="failed"} 1.0' in runtime.metrics.page().decode()
        site.publish("3")
        await eventually(lambda: answers(runtime) == "3", "the one after it")

    site.serve(use, watch_s=0.01)
    assert site.mirrored() == ["1", "3"]


def test_a_tampered_version_that_is_promoted_leaves_all_as_it_was(site: Site) -> None:
    mirror = site.mirror()
    site.publish("2")
    site.store.promote("tiny", "1")
    mirror.begin()
    site.publish("3")
    site.store.promote("tiny", "3")
    site.damage("3")
    mirror.sync()
    assert "3" not in site.mirrored()
    assert ModelStore(site.folder).promoted("tiny") == "1"


def test_a_broken_version_is_tried_again_after_a_while(site: Site) -> None:
    now = 0.0
    mirror = Mirror(site.settings().store, clock=lambda: now)
    mirror.begin()
    site.publish("2")
    site.damage("2")
    mirror.sync()
    site.damage("2")  # as it was
    mirror.sync()
    assert site.mirrored() == ["1"]
    now = 301.0
    mirror.sync()
    assert site.mirrored() == ["1", "2"]


def test_what_the_disk_has_no_room_for_is_not_asked_for_again_and_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    mirror = Mirror(site.settings().store, clock=lambda: now)
    mirror.begin()
    site.publish("2")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("model_store.remote.os.fsync", full)
        mirror.sync()
        site.files.read.clear()
        mirror.sync()
    assert not [path for path, _, _ in site.files.read if "/2/" in path]
    assert site.mirrored() == ["1"]
    now = 301.0
    mirror.sync()
    assert site.mirrored() == ["1", "2"]


def test_one_models_trouble_is_not_the_others(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.publish("1", "other")
    site.files(use_listings_cache=False).pipe_file("/store/models/other/PROMOTED", b"x")
    mirror = site.mirror()
    mirror.begin()
    mirror.sync()
    assert site.mirrored() == ["1"]
    assert caplog.text.count("model other:") == 1


def test_a_model_that_is_gone_is_gone(site: Site) -> None:
    site.publish("1", "other")
    mirror = site.mirror()
    mirror.begin()
    site.store.remove("tiny", "1")
    mirror.sync()
    assert ModelStore(site.folder).names() == ["other"]
    assert not (site.folder / "tiny").exists()


def test_one_worker_follows_for_all(site: Site, tmp_path: Path) -> None:
    """The second waits for the first, here for whoever holds its lock."""
    mirror = Mirror(site.settings(watch_s=0.01).store, tmp_path)
    mirror.begin()
    with (tmp_path / LEADER_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mirror.start()
        site.publish("2")
        lists = site.files.find
        try:
            site.files.find = lambda *_, **__: pytest.fail("it looked")  # type: ignore[method-assign]
            mirror._ending.wait(0.1)
        finally:
            site.files.find = lists  # type: ignore[method-assign]
        assert site.mirrored() == ["1"]
    asyncio.run(eventually(lambda: site.mirrored() == ["1", "2"], "the next leader's look"))
    mirror.stop()


def test_an_administrator_has_it_looked_at(site: Site) -> None:
    """With RESNET_WATCH_S=0 nobody else does."""

    async def use(runtime: Runtime) -> None:
        transport = httpx.ASGITransport(Api(runtime))
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://here", headers=headers) as client:

            async def load(name: str) -> int:
                return (await client.post(f"/v2/repository/models/{name}/load")).status_code

            site.publish("2")
            site.publish("1", "other")
            assert await load("tiny") == 200
            assert answers(runtime) == "2"
            assert await load("other") == 200
            assert ("other", "1") in served(runtime)
            site.files.broken.add("find")
            assert await load("tiny") == 200, "from the mirror"
            rows = (await client.post("/v2/repository/index")).json()
            assert {(row["name"], row["version"], row["state"]) for row in rows} == {
                ("other", "1", "READY"), ("tiny", "1", "UNAVAILABLE"), ("tiny", "2", "READY"),
            }  # fmt: skip

    site.serve(use, admin_key=KEY)


def test_a_model_that_is_asked_for_and_not_there(site: Site) -> None:
    with pytest.raises(StoreError, match="no model 'unknown'"):
        check_start(site.settings(models="unknown"))
    assert not list(site.cache.glob(f"*/*/*/{MANIFEST_FILE}"))
