from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from model_store.store import ModelStore
from service.config import Settings
from service.metrics import Metrics
from service.models import lifecycle
from service.models import watcher as module
from service.models.watcher import Watcher
from service.process.workers import Workers
from service.runtime import Runtime
from tests.service.conftest import eventually, some_settings
from tests.service.models.conftest import answers, ask, publish, serve, served

KEY = "k" * 16


def test_what_is_published_and_promoted_is_found_by_itself(root: Path, store: ModelStore) -> None:
    async def use(runtime: Runtime) -> None:
        publish(root, "2")
        await eventually(lambda: answers(runtime) == "2")
        store.promote("tiny", "1")
        await eventually(lambda: answers(runtime) == "1")
        assert await ask(runtime) == "1"

    serve(root, use, watch_s=0.01)


def test_a_pass_that_fails_does_not_end_the_watch(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(runtime: Runtime) -> None:
        real, passes = runtime.lifecycle.refresh, 0

        async def failing(asked: set[str] | None = None) -> bool:
            nonlocal passes
            passes += 1
            if passes == 1:
                raise RuntimeError("a fault")
            return await real(asked)

        monkeypatch.setattr(runtime.lifecycle, "refresh", failing)
        publish(root, "2")
        await eventually(lambda: answers(runtime) == "2")
        assert "cannot be brought in line" in caplog.text

    serve(root, use, watch_s=0.01)


def test_with_neither_interval_nor_key_nobody_looks(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        await Watcher(runtime.lifecycle, None, 0).run()  # ends at once

    serve(root, use)


def test_what_was_asked_while_the_store_could_not_be_read_is_done_later(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONTROL_S", 0.01)
    publish(root, "1", "other")

    async def use(runtime: Runtime) -> None:
        real, asked_for = lifecycle.look_at_all, []

        def unreadable(*store: Any) -> Any:
            asked_for.append(store)
            if len(asked_for) == 1:
                raise OSError("stale file handle")
            return real(*store)

        monkeypatch.setattr(lifecycle, "look_at_all", unreadable)
        publish(root, "2")
        runtime.control.mark("tiny", unloaded=False)
        await eventually(lambda: ("tiny", "2") in served(runtime))
        assert len(asked_for) == 2

    serve(root, use, admin_key=KEY)


def test_what_one_worker_is_asked_all_do(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONTROL_S", 0.01)
    publish(root, "1", "other")
    settings: Settings = some_settings(root, watch_s=0, admin_key=KEY)

    async def main() -> None:
        workers = [Runtime(settings, Metrics(None), Workers(tmp_path, 2)) for _ in range(2)]
        for runtime in workers:
            await runtime.start()
        workers[0].control.mark("tiny", unloaded=True)
        for runtime in workers:
            await eventually(lambda runtime=runtime: served(runtime) == [("other", "1")])  # type: ignore[misc]
        replacing = Runtime(settings, Metrics(None), Workers(tmp_path, 2))
        await replacing.start()
        assert served(replacing) == [("other", "1")], "who comes later knows it, too"
        publish(root, "2")
        publish(root, "2", "other")
        workers[1].control.mark("tiny", unloaded=False)
        for runtime in (*workers, replacing):
            await eventually(lambda runtime=runtime: len(served(runtime)) == 2)  # type: ignore[misc]
            assert served(runtime) == [("other", "1"), ("tiny", "2")], "only what was asked for is read anew"
            await runtime.stop()

    asyncio.run(main())
