"""Versions take over while the service runs, and the old ones are drained."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from pathlib import Path

import pytest

from model_store.store import ModelStore
from service.errors import UnknownModel
from service.models import loader
from service.runtime import Runtime
from tests.service.conftest import a_png, eventually, publish_tiny
from tests.service.models.conftest import ask, constant_load, publish, serve, served


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
