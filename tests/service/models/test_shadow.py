"""Canaries: traffic that is split, and copies that are compared."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.manifest import MANIFEST_FILE, dump_manifest
from model_store.store import ModelStore
from service.errors import InferenceFailed, NotAnImage
from service.images.decode import Decoded, Ready
from service.models.shadow import Comparison
from service.runtime import Runtime
from tests.service.conftest import SIDE, Hold, TinyModel, a_picture, a_png, eventually, turns
from tests.service.models.conftest import ask, constant_load, publish, serve

ENDLESS = float("inf")


@pytest.fixture
def canary(root: Path, store: ModelStore) -> TinyModel:
    """Version 2 is the canary of version 1."""
    model = publish(root, "2")
    store.promote("tiny", "1")
    store.set_alias("tiny", "canary", "2")
    return model


def chances(runtime: Runtime, *values: float) -> None:
    turn = itertools.cycle(values)
    runtime.registry._chance = lambda: next(turn)


def seen(runtime: Runtime) -> Comparison:
    found = runtime.shadows.report("tiny")
    assert found is not None
    return found


def hold_canary(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Hold:
    session = runtime.find("tiny", "canary").session
    hold = Hold(session.run)
    monkeypatch.setattr(session, "run", hold)
    return hold


# Split


@pytest.mark.usefixtures("canary")
def test_the_canary_answers_its_share_and_says_so(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        chances(runtime, 0.1, 0.25, 0.9, 0.2)
        assert [await ask(runtime) for _ in range(8)] == ["2", "1", "1", "2"] * 2
        assert [await ask(runtime, name="tiny") for _ in range(2)] == ["2", "1"]
        assert [await ask(runtime, version=version) for version in ("1", "stable", "canary")] == ["1", "1", "2"]
        assert runtime.find(None, None).stored.manifest.version == "1"

    serve(root, use, canary_share=0.25)


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize(("share", "version"), [(0, "1"), (1, "2")])
def test_none_and_all(root: Path, share: float, version: str) -> None:
    async def use(runtime: Runtime) -> None:
        assert {await ask(runtime) for _ in range(20)} == {version}

    serve(root, use, canary_share=share)


def test_a_model_without_a_canary_is_as_ever(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        assert await ask(runtime) == "1"

    for mode in ("split", "shadow"):
        serve(root, use, canary_share=1, canary_mode=mode)


@pytest.mark.usefixtures("canary")
def test_a_version_that_is_pinned_has_no_canary(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        assert await ask(runtime) == "1"

    serve(root, use, models="tiny@1", canary_share=1)


# Shadow


def test_copies_are_compared(root: Path, canary: TinyModel) -> None:
    stable = TinyModel(seed=1)

    def probabilities(model: TinyModel, seed: int) -> Any:
        logits = model.logits([np.asarray(a_picture(seed))])[0].astype(np.float64)
        return np.exp(logits) / np.exp(logits).sum()

    async def use(runtime: Runtime) -> None:
        agreed, difference = 0, 0.0
        for seed in range(10):
            assert await ask(runtime, seed) == "1"
            await eventually(lambda seed=seed: seen(runtime).compared == seed + 1)  # type: ignore[misc]
            p, q = probabilities(stable, seed), probabilities(canary, seed)
            agreed += p.argmax() == q.argmax()
            difference += abs(p[p.argmax()] - q[p.argmax()])
        found = seen(runtime)
        assert (found.agreed, found.dropped, found.failed) == (agreed, 0, 0)
        assert found.difference == pytest.approx(difference, abs=1e-4)
        assert len(found.seconds) == 10
        assert all(stable_s > 0 and canary_s > 0 for stable_s, canary_s in found.seconds)
        page = runtime.metrics.page().decode()
        assert 'resnet_shadow_probability_difference_count{model="tiny"} 10.0' in page
        assert 'resnet_shadow_seconds_count{by="canary",model="tiny"} 10.0' in page
        outcomes = [float(line.split()[-1]) for line in page.splitlines() if "resnet_shadow_images_total{" in line]
        assert sum(outcomes) == 10
        await ask(runtime, version="1")
        await ask(runtime, version="stable")
        await turns()
        assert seen(runtime).compared == 10, "who names a version is not copied"

    serve(root, use, canary_share=1, canary_mode="shadow")


@pytest.mark.usefixtures("canary")
def test_a_version_is_not_copied_to_itself(root: Path, store: ModelStore) -> None:
    async def use(runtime: Runtime) -> None:
        store.promote("tiny", "2")
        await runtime.lifecycle.refresh()
        assert await ask(runtime) == "2"
        assert runtime.shadows.report("tiny") is None

    serve(root, use, canary_share=1, canary_mode="shadow")


@pytest.mark.usefixtures("canary")
def test_an_image_made_for_one_input_is_not_copied_to_another(root: Path, store: ModelStore) -> None:
    stored = store.resolve("tiny", "2")
    other = stored.manifest.preprocessing.model_copy(update={"resize": 16})
    manifest = stored.manifest.model_copy(update={"preprocessing": other})
    (stored.folder / MANIFEST_FILE).write_text(dump_manifest(manifest))

    async def use(runtime: Runtime) -> None:
        pixels = np.asarray(a_picture(1))
        with runtime.use(None, None) as pipeline:
            assert await pipeline.run(Ready(Decoded(pixels, (SIDE, SIDE))), pipeline.top(1), ENDLESS)
            await turns()
            assert (seen(runtime).compared, seen(runtime).dropped, seen(runtime).failed) == (0, 0, 0)
            assert await pipeline.run(a_png(1), pipeline.top(1), ENDLESS)
        await eventually(lambda: seen(runtime).compared == 1)

    serve(root, use, canary_share=1, canary_mode="shadow", slots=2)


@pytest.mark.usefixtures("canary")
def test_many_images_of_one_request_and_broken_ones(root: Path) -> None:
    async def use(runtime: Runtime) -> None:
        with runtime.use(None, None) as pipeline:
            results = await pipeline.run_many([a_png(1), b"none", a_png(2)], pipeline.top(1), ENDLESS)
            with pytest.raises(NotAnImage):
                await pipeline.run(b"none", pipeline.top(1), ENDLESS)
        assert isinstance(results[1], NotAnImage)
        await eventually(lambda: seen(runtime).compared == 2)
        assert seen(runtime).failed == 0

    serve(root, use, canary_share=1, canary_mode="shadow", slots=2, canary_in_flight=4)


@pytest.mark.usefixtures("canary")
def test_copies_are_dropped_while_enough_are_under_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(runtime: Runtime) -> None:
        hold = hold_canary(runtime, monkeypatch)
        assert await ask(runtime, 1) == "1"
        await hold.wait_entered()
        for seed in range(5):  # the canary does not move, and no answer waits for it
            assert await ask(runtime, seed) == "1"
        assert (seen(runtime).dropped, seen(runtime).compared) == (5, 0)
        hold.released.set()
        await eventually(lambda: seen(runtime).compared == 1)
        assert 'outcome="dropped"} 5.0' in runtime.metrics.page().decode()

    serve(root, use, canary_share=1, canary_mode="shadow", slots=2, canary_in_flight=1)


@pytest.mark.usefixtures("canary")
def test_copies_are_dropped_while_no_slot_is_idle(root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(runtime: Runtime) -> None:
        hold = hold_model(runtime)
        tasks = [asyncio.create_task(ask(runtime, seed)) for seed in range(6)]
        await hold.wait_entered()
        hold.released.set()
        assert await asyncio.gather(*tasks) == ["1"] * 6
        await eventually(lambda: seen(runtime).compared + seen(runtime).dropped == 6)
        assert seen(runtime).dropped > 0

    serve(root, use, canary_share=1, canary_mode="shadow", max_batch=1, canary_in_flight=100)


@pytest.mark.usefixtures("canary")
def test_a_canary_that_fails_harms_nobody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(runtime: Runtime) -> None:
        def broken(*_: Any) -> Any:
            raise InferenceFailed("no")

        monkeypatch.setattr(runtime.find("tiny", "canary").session, "run", broken)
        assert await ask(runtime) == "1"
        await eventually(lambda: seen(runtime).failed == 1)

    serve(root, use, canary_share=1, canary_mode="shadow")


@pytest.mark.usefixtures("canary")
def test_another_version_begins_another_comparison(root: Path, store: ModelStore) -> None:
    async def use(runtime: Runtime) -> None:
        async with constant_load(runtime):
            await eventually(lambda: runtime.shadows.report("tiny") is not None and seen(runtime).compared > 2)
            before = seen(runtime)
            publish(root, "3")
            store.set_alias("tiny", "canary", "3")
            await runtime.lifecycle.refresh()
            await eventually(lambda: runtime.shadows.report("tiny") not in (None, before))
            assert seen(runtime).canary.version == "3"
        await eventually(lambda: not runtime.lifecycle.draining)
        store.set_alias("tiny", "canary", None)
        await runtime.lifecycle.refresh()
        assert runtime.shadows.report("tiny") is None

    serve(root, use, canary_share=1, canary_mode="shadow", slots=2)


@pytest.mark.usefixtures("canary")
def test_stop_while_a_copy_is_under_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(runtime: Runtime) -> None:
        hold = hold_canary(runtime, monkeypatch)
        await ask(runtime)
        await hold.wait_entered()
        stopping = asyncio.create_task(runtime.stop())
        await turns()
        hold.released.set()
        await stopping

    serve(root, use, canary_share=1, canary_mode="shadow")
