from __future__ import annotations

import asyncio
import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from model_store.manifest import MANIFEST_FILE, dump_manifest
from model_store.store import ModelStore
from model_store.stored_model import StoredModel
from model_store.verified import describe_file
from service import runtime as runtime_module
from service.errors import UnknownModel
from service.metrics import Metrics
from service.models import loader
from service.process.workers import Workers
from service.runtime import Runtime
from tests.service.conftest import TinyModel, a_png, eventually, publish_tiny, some_settings
from tests.service.models.conftest import answers, ask, constant_load, publish, serve, served


def rewrite(stored: StoredModel) -> None:
    """The manifest says what the file is now: the hashes are right."""
    file = describe_file(stored.folder / "fp32.onnx")
    variant = stored.manifest.variants[0].model_copy(update=file.model_dump())
    manifest = stored.manifest.model_copy(update={"variants": [variant]})
    (stored.folder / MANIFEST_FILE).write_text(dump_manifest(manifest))


def break_graph(stored: StoredModel) -> None:
    (stored.folder / "fp32.onnx").write_bytes(b"no graph")
    rewrite(stored)


def swap(stored: StoredModel, model: TinyModel, *, dtype: int = TensorProto.UINT8, external: bool = False) -> None:
    """Another graph than the manifest describes, with the hash of its file in the manifest."""
    path = stored.folder / "fp32.onnx"
    if external:
        onnx.save(
            model.proto(), path, save_as_external_data=True, location="weights", size_threshold=0,
            convert_attribute=True,
        )  # fmt: skip
    else:
        onnx.save(model.proto(input_type=dtype), path)
    rewrite(stored)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


BREAKS: dict[str, tuple[Callable[[StoredModel], Any], str]] = {
    "truncated": (lambda s: (s.folder / "fp32.onnx").write_bytes(b""), "the manifest says"),
    "wrong hash": (
        lambda s: (s.folder / "fp32.onnx").write_bytes(b"\0" * s.manifest.variants[0].bytes),
        "SHA-256",
    ),
    "a bit": (lambda s: flip(s.folder / "fp32.onnx"), "SHA-256"),
    "other labels": (lambda s: flip(s.folder / "labels.txt"), "SHA-256"),
    "hard link": (lambda s: os.link(s.folder / "fp32.onnx", s.folder.parent / "other"), "hard link"),
    "symbolic link": (lambda s: link(s.folder / "fp32.onnx"), "not a plain file"),
    "wrong shape": (lambda s: swap(s, TinyModel(), dtype=TensorProto.FLOAT), "its input is"),
    "wrong classes": (lambda s: swap(s, TinyModel(classes=2)), "no logits of 7 classes"),
    "external data": (lambda s: swap(s, TinyModel(), external=True), "weights in another file"),
    "no labels": (lambda s: (s.folder / "labels.txt").unlink(), "missing"),
    "no graph": (break_graph, "INVALID_PROTOBUF"),
    "no manifest": (lambda s: (s.folder / MANIFEST_FILE).write_text("{"), "manifest"),
}


async def drained(runtime: Runtime) -> None:
    await eventually(lambda: not runtime.lifecycle.draining, "the end of the old version")


# Taking over


def test_a_new_version_takes_over_under_load_without_a_failure(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        async with constant_load(runtime) as seen:
            await eventually(lambda: len(seen) > 20)
            publish(root, "2")
            await runtime.lifecycle.refresh()
            await drained(runtime)
            swapped = len(seen)
            await eventually(lambda: len(seen) > swapped + 20)
        assert served(runtime) == [("tiny", "2")]
        assert set(seen[:20]) == {"1"}
        assert set(seen[swapped:]) == {"2"}, "the old version answered after it was drained"

    serve(root, use, slots=2)


def test_the_old_one_answers_until_the_new_one_is_warm(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, may_warm = threading.Event(), threading.Event()
    real = loader.Session.warm_up

    def slow(session: loader.Session, max_batch: int) -> None:
        entered.set()
        assert may_warm.wait(30)
        real(session, max_batch)

    async def use(runtime: Runtime) -> None:
        monkeypatch.setattr(loader.Session, "warm_up", slow)
        publish(root, "2")
        refreshing = asyncio.create_task(runtime.lifecycle.refresh())
        assert await asyncio.to_thread(entered.wait, 30)
        assert runtime.lifecycle.status["tiny"].loading == {"2"}
        assert await ask(runtime) == "1"
        with pytest.raises(UnknownModel):
            runtime.find("tiny", "2")
        may_warm.set()
        await refreshing
        assert not runtime.lifecycle.status["tiny"].loading
        assert await ask(runtime) == "2"

    serve(root, use)


def test_rollback_by_promotion(root: Path, store: ModelStore) -> None:
    async def use(runtime: Runtime) -> None:
        publish(root, "2")
        await runtime.lifecycle.refresh()
        assert await ask(runtime) == "2"
        store.promote("tiny", "1")
        await runtime.lifecycle.refresh()
        assert await ask(runtime) == "1"
        publish(root, "3")
        await runtime.lifecycle.refresh()
        assert served(runtime) == [("tiny", "1")], "what is promoted stays, whatever is newer"

    serve(root, use)


def test_nothing_changes_where_nothing_changed(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        before = runtime.models
        for _ in range(3):
            await runtime.lifecycle.refresh()
        assert runtime.models == before
        (root / "tiny" / "1" / "labels.txt").touch()  # another time of change, the same model
        await runtime.lifecycle.refresh()
        assert runtime.models == before

    serve(root, use)


def test_a_version_that_is_another_under_its_number_is_loaded_anew(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        before = runtime.find(None, None)
        shutil.rmtree(root / "tiny" / "1")
        publish_tiny(root, "tiny", "1", classes=None, model=None)
        await runtime.lifecycle.refresh()
        assert runtime.find(None, None) is not before
        assert b'resnet_model_info{model="tiny"' in runtime.metrics.page()

    serve(root, use)


def test_models_come_and_go_with_the_store(root: Path, store: ModelStore) -> None:
    async def use(runtime: Runtime) -> None:
        publish(root, "1", "other")
        await runtime.lifecycle.refresh()
        assert served(runtime) == [("other", "1"), ("tiny", "1")]
        store.remove("other", "1")
        await runtime.lifecycle.refresh()
        assert served(runtime) == [("tiny", "1")]
        assert set(runtime.lifecycle.status) == {"tiny"}

    serve(root, use)


def test_only_the_models_asked_for_are_followed(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        publish(root, "1", "other")
        await runtime.lifecycle.refresh()
        assert served(runtime) == [("tiny", "1")]
        await runtime.lifecycle.refresh({"nobody"})
        publish(root, "2")
        await runtime.lifecycle.refresh({"other"})
        assert served(runtime) == [("tiny", "1")]

    serve(root, use, models="tiny")


# Aliases and policies


def test_aliases_are_served_and_asked_for(root: Path, store: ModelStore) -> None:
    async def use(runtime: Runtime) -> None:
        publish(root, "2")
        publish(root, "3")
        store.promote("tiny", "1")
        store.set_alias("tiny", "canary", "3")
        await runtime.lifecycle.refresh()
        assert served(runtime) == [("tiny", "1"), ("tiny", "3")]
        assert [await ask(runtime, version=v) for v in (None, "stable", "canary", "1", "3")] == [
            "1",
            "1",
            "3",
            "1",
            "3",
        ]
        store.set_alias("tiny", "canary", "2")
        await runtime.lifecycle.refresh()
        assert await ask(runtime, name="tiny", version="canary") == "2"
        with pytest.raises(UnknownModel, match=r"served: tiny version 1, tiny version 2 \(canary\)"):
            runtime.find("tiny", "3")
        store.set_alias("tiny", "canary", None)
        await runtime.lifecycle.refresh()
        with pytest.raises(UnknownModel):
            runtime.find("tiny", "canary")

    serve(root, use)


@pytest.mark.parametrize(
    ("policy", "versions"),
    [("stable", ["2"]), ("latest", ["2", "4"]), ("latest:2", ["2", "4", "3"]), ("all", ["2", "4", "3", "1"])],
)
def test_policies(root: Path, store: ModelStore, policy: str, versions: list[str]) -> None:
    for version in ("2", "3", "4"):
        publish(root, version)
    store.promote("tiny", "2")

    async def use(runtime: Runtime) -> None:
        assert served(runtime) == [("tiny", version) for version in versions]
        assert answers(runtime) == "2"

    serve(root, use, version_policy=policy)


def test_all_follows_what_is_published(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        first = runtime.find(None, "1")
        publish(root, "2")
        await runtime.lifecycle.refresh()
        assert served(runtime) == [("tiny", "2"), ("tiny", "1")]
        assert runtime.find(None, "1") is first, "what is served already was opened again"

    serve(root, use, version_policy="all")


# What is broken


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_version_changes_nothing_and_is_told_once(
    root: Path, store: ModelStore, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken, reason = BREAKS[how]

    async def use(runtime: Runtime) -> None:
        before = runtime.models
        publish(root, "2")
        broken(store.resolve("tiny", "2"))
        with caplog.at_level("ERROR", "service"):
            for _ in range(3):
                await runtime.lifecycle.refresh()
        assert runtime.models == before
        assert await ask(runtime) == "1"
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.startswith("model tiny version 2 cannot be loaded: ")
        failure = runtime.lifecycle.status["tiny"].failed["2"]
        assert reason in failure.reason
        assert str(root) not in failure.reason
        assert b'resnet_model_loads_total{model="tiny",outcome="failed"} 1.0' in runtime.metrics.page()
        # Repaired: tried again, as its files are others.
        shutil.rmtree(root / "tiny" / "2")
        publish(root, "2")
        await runtime.lifecycle.refresh()
        assert await ask(runtime) == "2"
        assert not runtime.lifecycle.status["tiny"].failed

    serve(root, use)


def test_behind_a_broken_version_the_next_good_one_takes_over(root: Path, store: ModelStore) -> None:
    async def use(runtime: Runtime) -> None:
        publish(root, "2")
        break_graph(store.resolve("tiny", "2"))
        await runtime.lifecycle.refresh()
        publish(root, "3")
        await runtime.lifecycle.refresh()
        assert await ask(runtime) == "3"
        assert set(runtime.lifecycle.status["tiny"].failed) == {"2"}
        store.remove("tiny", "2")
        await runtime.lifecycle.refresh()
        assert not runtime.lifecycle.status["tiny"].failed

    serve(root, use)


def test_the_newest_are_those_that_can_be_loaded(root: Path, store: ModelStore) -> None:
    for version in ("2", "3"):
        publish(root, version)

    async def use(runtime: Runtime) -> None:
        assert served(runtime) == [("tiny", "3"), ("tiny", "2")]
        publish(root, "4")
        break_graph(store.resolve("tiny", "4"))
        await runtime.lifecycle.refresh()
        assert served(runtime) == [("tiny", "3"), ("tiny", "2")]

    serve(root, use, version_policy="latest:2")


@pytest.mark.parametrize("how", ["gone", "empty", "a file"])
def test_a_store_that_cannot_be_read_changes_nothing(
    root: Path, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def take_away() -> None:
        root.rename(tmp_path / "away")
        if how == "empty":
            root.mkdir()
        elif how == "a file":
            root.write_text("")

    def bring_back() -> None:
        if how == "empty":
            root.rmdir()
        elif how == "a file":
            root.unlink()
        (tmp_path / "away").rename(root)

    async def use(runtime: Runtime) -> None:
        before = runtime.models
        take_away()
        with caplog.at_level("ERROR", "service"):
            for _ in range(3):
                await runtime.lifecycle.refresh()
        assert runtime.models == before
        assert await ask(runtime) == "1"
        assert len(caplog.records) == 1
        bring_back()
        publish(root, "2")
        await runtime.lifecycle.refresh()
        assert await ask(runtime) == "2"

    serve(root, use)


@pytest.mark.parametrize("models", ["*", "tiny,other", "tiny@1,other"])
def test_a_promotion_that_cannot_be_read_changes_nothing(root: Path, models: str) -> None:
    publish(root, "1", "other")

    async def use(runtime: Runtime) -> None:
        before = runtime.models
        (root / "tiny" / "PROMOTED").write_text("7")
        publish(root, "2", "other")
        await runtime.lifecycle.refresh()
        assert runtime.find("tiny", None) in before
        assert "version 7" in runtime.lifecycle.status["tiny"].trouble
        assert answers(runtime, name="other") == "2", "one model's trouble is not another's"
        (root / "tiny" / "PROMOTED").unlink()
        await runtime.lifecycle.refresh()
        assert not runtime.lifecycle.status["tiny"].trouble

    serve(root, use, models=models)


def test_a_model_named_by_the_settings_stays_where_the_store_loses_it(root: Path) -> None:
    publish(root, "1", "other")

    async def use(runtime: Runtime) -> None:
        shutil.rmtree(root / "tiny")
        await runtime.lifecycle.refresh()
        assert served(runtime) == [("tiny", "1"), ("other", "1")]
        assert await ask(runtime) == "1"

    serve(root, use, models="tiny,other")


# Drained


def test_what_is_in_use_is_not_closed(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        with runtime.use(None, None) as old:
            publish(root, "2")
            await runtime.lifecycle.refresh()
            assert await ask(runtime) == "2"
            assert runtime.lifecycle.draining == [("tiny", "1")]
            assert await old.run(a_png(), old.top(1), float("inf"))
        await drained(runtime)

    serve(root, use)


def test_the_old_session_is_freed_at_once(root: Path) -> None:
    """No garbage collection is waited for: the sessions are what is large."""

    async def use(runtime: Runtime) -> None:
        session = weakref.ref(runtime.find(None, None).session)
        publish(root, "2")
        gc.disable()
        try:
            await runtime.lifecycle.refresh()
            await drained(runtime)
            assert session() is None
        finally:
            gc.enable()

    serve(root, use)


def test_what_is_gone_is_gone_from_the_metrics(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        for version in ("2", "3", "4"):
            publish(root, version)
            await runtime.lifecycle.refresh()
        info = [line for line in runtime.metrics.page().decode().splitlines() if line.startswith("resnet_model_info{")]
        assert len(info) == 1
        assert 'version="4"' in info[0]
        assert b'resnet_model_loads_total{model="tiny",outcome="loaded"} 4.0' in runtime.metrics.page()

    serve(root, use)


def test_stop_while_an_old_version_is_in_use(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        with runtime.use(None, None):
            publish(root, "2")
            await runtime.lifecycle.refresh()
            await runtime.stop()

    serve(root, use)


def test_a_new_model_gets_the_process_share(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        publish(root, "2")
        await runtime.lifecycle.refresh()
        assert [pipeline.session.slots for pipeline in runtime.models] == [3]

    serve(root, use, slots=3)


# Workers


def test_a_worker_that_replaces_another_passes_a_broken_version_over(
    root: Path, store: ModelStore, tmp_path: Path
) -> None:
    publish(root, "2")
    break_graph(store.resolve("tiny", "2"))
    workers = Workers(tmp_path, 1)
    workers.mark_ready()

    async def main() -> None:
        runtime = Runtime(some_settings(root, watch_s=0), Metrics(None), workers)
        await runtime.start()
        assert await ask(runtime) == "1"
        assert set(runtime.lifecycle.status["tiny"].failed) == {"2"}
        await runtime.stop()

    asyncio.run(main())


def test_a_worker_that_can_load_nothing_says_so_and_tries_again(
    root: Path, store: ModelStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its parent would start another in its place at once, and so on."""
    stored = store.resolve("tiny", "1")
    weights = stored.path(stored.manifest.variants[0])
    good = weights.read_bytes()
    weights.write_bytes(b"broken")
    workers = Workers(tmp_path, 1)
    workers.mark_ready()
    monkeypatch.setattr(runtime_module, "RETRY_S", (0.001, 0.002, 0.003))

    def pauses() -> list[str]:
        return [line.rpartition("again in ")[2] for line in caplog.messages if "; again in" in line]

    async def main() -> None:
        runtime = Runtime(some_settings(root, watch_s=0), Metrics(None), workers)
        loading = runtime.start()
        await runtime.load_failed.wait()
        unready = runtime.unready or ""
        assert unready.startswith("the models cannot be loaded: no model can be loaded: tiny version 1: tiny/1/")
        assert "6 bytes, the manifest says" in unready
        await eventually(lambda: len(pauses()) >= 5)
        weights.write_bytes(good)
        await loading
        assert runtime.unready is None
        assert await ask(runtime) == "1"
        await runtime.stop()

    asyncio.run(main())
    assert pauses()[:5] == ["0.001 s", "0.002 s", "0.003 s", "0.003 s", "0.003 s"]
