from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_store.reports import GateRule
from model_store.store import StoreError
from model_store.stored_model import StoredModel
from service import runtime as module
from service.config import Settings
from service.errors import NotReady, UnknownModel
from service.metrics import Metrics
from service.models import loader, selection
from service.process.workers import Workers
from service.providers import ProviderUnavailable
from service.runtime import Runtime, StartError, check_start, chosen_models
from tests.service.conftest import (
    TinyModel,
    a_gate,
    a_png,
    eventually,
    expected,
    publish_tiny,
    serving,
    some_settings,
    turns,
)
from tests.service.metrics.test_gpu import FakeNvml


def names(models: list[StoredModel]) -> list[tuple[str, str]]:
    return [(stored.manifest.name, stored.manifest.version) for stored in models]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for name, version in (("b", "1"), ("b", "2"), ("a", "1")):
        publish_tiny(tmp_path, name, version)
    return tmp_path


# What is chosen


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        ("*", [("a", "1"), ("b", "2")]),
        ("b", [("b", "2")]),
        ("b@1", [("b", "1")]),
        ("b,a", [("b", "2"), ("a", "1")]),
        ("b,b@1", [("b", "2"), ("b", "1")]),
    ],
)
def test_models_are_chosen_in_order(three: Path, models: str, chosen: list[tuple[str, str]]) -> None:
    assert names(chosen_models(some_settings(three, models=models))) == chosen


def test_one_version_named_twice_is_served_once(three: Path) -> None:
    """``b`` is its newest version, 2: loading that again would cost its memory for nothing."""
    try:
        chosen = names(chosen_models(some_settings(three, models="b,b@2")))
    except StartError:
        return
    assert chosen == [("b", "2")]


@pytest.mark.parametrize("models", ["c", "b@3", "a,c"])
def test_a_model_that_is_missing_stops_the_start(three: Path, models: str) -> None:
    with pytest.raises(StoreError):
        check_start(some_settings(three, models=models))


def test_an_empty_store_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="RESNET_MODEL_STORE"):
        check_start(some_settings(tmp_path))
    with pytest.raises(StoreError, match="no such"):
        check_start(some_settings(tmp_path / "none"))


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"x"), lambda path: path.unlink(), lambda path: path.write_bytes(b"")]
)
@pytest.mark.parametrize("file", ["fp32.onnx", "labels.txt", "manifest.json"])
def test_a_damaged_model_stops_the_start(three: Path, file: str, damage: Callable[[Path], Any]) -> None:
    damage(three / "a" / "1" / file)
    with pytest.raises(StoreError) as caught:
        check_start(some_settings(three, models="a"))
    assert "\n" not in str(caught.value)


def test_labels_that_do_not_fit_stop_the_start(tmp_path: Path) -> None:
    publish_tiny(tmp_path, classes=3)
    with pytest.raises(StartError):
        check_start(some_settings(tmp_path))


def test_a_provider_that_cannot_be_had_stops_the_start(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(_: str) -> Any:
        raise ProviderUnavailable("no NVIDIA GPU")

    monkeypatch.setattr(module, "candidates", unavailable)
    with pytest.raises(StartError, match="no NVIDIA GPU"):
        check_start(some_settings(tiny_root, provider="cuda"))


def test_a_good_configuration_passes(tiny_root: Path) -> None:
    check_start(some_settings(tiny_root))


def test_a_precision_that_a_model_lacks_stops_the_start(tiny_root: Path) -> None:
    with pytest.raises(StartError, match="no int8 variant"):
        check_start(some_settings(tiny_root, precision="int8"))


@pytest.mark.parametrize(("rule", "precision"), [("off", "fp32"), ("agreement", "int8")])
def test_what_runs_is_told(tmp_path: Path, rule: GateRule, precision: str, caplog: pytest.LogCaptureFixture) -> None:
    publish_tiny(tmp_path, others={"int8": (TinyModel(seed=1), a_gate(rule, passed=rule != "off"))})

    async def use(runtime: Runtime) -> None:
        assert runtime.models[0].session.variant.precision == precision
        assert f'precision="{precision}"'.encode() in runtime.metrics.page()

    with caplog.at_level("INFO", "service.models"):
        serving(some_settings(tmp_path), use)
    assert f"model tiny version 1: cpu, {precision}" in caplog.text
    assert "ungated" not in caplog.text


def test_an_ungated_variant_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish_tiny(tmp_path, others={"int8": (TinyModel(seed=1), a_gate("off", passed=False))})

    async def use(runtime: Runtime) -> None:
        assert runtime.models[0].session.variant.precision == "int8"

    serving(some_settings(tmp_path, precision="int8"), use)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("model tiny version 1: its int8 variant is ungated")


# Finding


def test_find(three: Path) -> None:
    async def use(runtime: Runtime) -> None:
        assert names([pipeline.stored for pipeline in runtime.models]) == [("b", "2"), ("b", "1"), ("a", "1")]
        for asked, found in {
            (None, None): ("b", "2"),
            ("b", None): ("b", "2"),
            ("b", "1"): ("b", "1"),
            ("b", "2"): ("b", "2"),
            (None, "1"): ("b", "1"),
            ("a", None): ("a", "1"),
            ("a", "1"): ("a", "1"),
        }.items():
            assert names([runtime.find(*asked).stored]) == [found]
        for asked in (("c", None), ("a", "2"), (None, "3"), ("", None), ("b", ""), ("B", None)):
            with pytest.raises(UnknownModel, match="served: b version 2, b version 1, a version 1"):
                runtime.find(*asked)

    serving(some_settings(three, models="b,b@1,a"), use)


# Life cycle


def a_runtime(settings: Settings, workers: Workers | None = None) -> Runtime:
    return Runtime(settings, Metrics(None), workers or Workers(None, 1))


def test_ready_only_when_loaded_and_warm(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_load = threading.Event()
    real = selection.chosen_models

    def slow(settings: Settings) -> list[StoredModel]:
        assert may_load.wait(30)
        return real(settings)

    monkeypatch.setattr(selection, "chosen_models", slow)

    async def test() -> None:
        runtime = a_runtime(some_settings(tiny_root))
        assert runtime.unready
        with pytest.raises(NotReady):
            runtime.find(None, None)
        loading = runtime.start()
        await turns()
        assert "loading" in (runtime.unready or "")
        with pytest.raises(NotReady, match="loading"):
            _ = runtime.models
        assert b"resnet_workers_ready 1.0" not in runtime.metrics.page()
        may_load.set()
        await loading
        assert runtime.unready is None
        assert b"resnet_workers_ready 1.0" in runtime.metrics.page()
        assert runtime.find(None, None).stored.manifest.name == "tiny"
        await runtime.stop()
        assert "shutting down" in (runtime.unready or "")
        assert b"resnet_workers_ready 0.0" in runtime.metrics.page()

    asyncio.run(test())


def test_every_batch_size_is_warm_before_ready(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[int] = []
    monkeypatch.setattr(loader.Session, "warm_up", lambda _self, max_batch: warmed.append(max_batch))

    async def use(_: Runtime) -> None:
        assert warmed == [3]

    serving(some_settings(tiny_root, max_batch=3), use)


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        runtime = a_runtime(some_settings(tmp_path))
        loading = runtime.start()
        with pytest.raises(StartError):
            await loading
        assert runtime.unready
        await runtime.stop()

    asyncio.run(test())


def test_stop_without_start_and_twice(tiny_root: Path) -> None:
    async def test() -> None:
        await a_runtime(some_settings(tiny_root)).stop()
        runtime = a_runtime(some_settings(tiny_root))
        await runtime.start()
        await runtime.stop()
        await runtime.stop()

    asyncio.run(test())


def test_stop_while_loading(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, may_load = threading.Event(), threading.Event()
    real = selection.chosen_models

    def slow(settings: Settings) -> list[StoredModel]:
        entered.set()
        assert may_load.wait(30)
        return real(settings)

    monkeypatch.setattr(selection, "chosen_models", slow)

    async def test() -> None:
        runtime = a_runtime(some_settings(tiny_root))
        loading = runtime.start()
        assert await asyncio.to_thread(entered.wait, 30)
        await runtime.stop()
        may_load.set()
        assert loading.cancelled()
        await turns()
        assert "shutting down" in (runtime.unready or ""), "it became ready after it was stopped"

    asyncio.run(test())


def test_stop_settles_what_was_accepted(tiny_root: Path, tiny: TinyModel, hold_model: Callable[[Runtime], Any]) -> None:
    async def use(runtime: Runtime) -> None:
        hold = hold_model(runtime)
        pipeline = runtime.models[0]
        tasks = [asyncio.create_task(pipeline.run(a_png(i), pipeline.top(1), float("inf"))) for i in range(6)]
        await hold.wait_entered()
        await eventually(lambda: len(pipeline._batcher._queue) == 5)
        stopping = asyncio.create_task(runtime.stop())
        await turns()
        assert not stopping.done()
        hold.released.set()
        await stopping
        assert [(await task)[0].index for task in tasks] == [expected(tiny, i, 1)[0][1] for i in range(6)]

    serving(some_settings(tiny_root), use)


def test_no_threads_are_left(tiny_root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        pipeline = runtime.models[0]
        await asyncio.gather(*(pipeline.run(a_png(i), pipeline.top(1), float("inf")) for i in range(8)))
        assert any(thread.name.startswith("slot") for thread in threading.enumerate())

    serving(some_settings(tiny_root, slots=2, decode_threads=2), use)
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("slot", "decode"))]


# Workers


def test_ready_when_the_other_workers_are_too(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        first, second = (a_runtime(some_settings(tiny_root), Workers(tmp_path, 2)) for _ in range(2))
        await first.start()
        assert first.unready == "other workers are loading"
        assert first.find(None, None)  # whoever reaches it is answered
        monkeypatch.setattr(os, "getpid", os.getppid)
        await second.start()
        assert first.unready is None
        assert second.unready is None
        await first.stop()
        await second.stop()

    asyncio.run(test())


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_gpus_are_looked_at_where_a_model_runs_on_one(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    async def use(runtime: Runtime) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(gpus=1))
        monkeypatch.setattr(runtime.models[0].session, "provider", provider)
        await runtime._sample_gpus()
        assert ("resnet_gpu_utilisation_ratio{" in runtime.metrics.page().decode()) == (provider != "cpu")

    serving(some_settings(tiny_root), use)
