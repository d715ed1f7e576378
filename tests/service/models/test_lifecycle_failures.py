"""Models and stores that are broken change nothing, and are told of."""

from __future__ import annotations

import asyncio
import os
import shutil
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
from service.metrics import Metrics
from service.models import lifecycle
from service.models.loader import Loader, Opened
from service.models.view import Signature
from service.process.workers import Workers
from service.runtime import Runtime
from tests.service.conftest import TinyModel, eventually, some_settings
from tests.service.models.conftest import answers, ask, publish, serve, served


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


@pytest.mark.parametrize("how", ["asked", "later"])
def test_what_its_files_are_not_to_blame_for_is_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def use(runtime: Runtime) -> None:
        original, opened = Loader.open, 0

        def short_of_memory(self: Loader, stored: StoredModel, signature: Signature) -> Opened:
            nonlocal opened
            opened += 1
            if opened == 1:
                raise MemoryError
            return original(self, stored, signature)

        monkeypatch.setattr(Loader, "open", short_of_memory)
        if how == "later":
            monkeypatch.setattr(lifecycle, "_AGAIN_S", 0.0)
        publish(root, "2")
        await runtime.lifecycle.refresh()
        assert runtime.lifecycle.status["tiny"].failed["2"].reason == "MemoryError"
        if how == "asked":
            await runtime.lifecycle.refresh()
            assert opened == 1
            await runtime.lifecycle.refresh({"tiny"})
        else:
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
