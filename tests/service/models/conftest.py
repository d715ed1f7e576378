"""Models that come and go."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from model_store.store import ModelStore
from service.errors import ServiceError
from service.runtime import Runtime
from tests.service.conftest import TinyModel, a_png, expected, publish_tiny, serving, some_settings


def publish(root: Path, version: str, name: str = "tiny", **others: Any) -> TinyModel:
    """Version ``version`` with weights of its own, so that its answers tell it from the others."""
    model = TinyModel(seed=int(version))
    publish_tiny(root, name, version, model, **others)
    return model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with ``tiny`` in version 1."""
    publish(tmp_path / "store", "1")
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> ModelStore:
    return ModelStore(root)


def serve(root: Path, use: Callable[[Runtime], Awaitable[None]], **environ: object) -> None:
    """Run ``use`` with a runtime over ``root`` that looks at the store only when it is told."""
    serving(some_settings(root, **({"watch_s": 0} | environ)), use)


def served(runtime: Runtime) -> list[tuple[str, str]]:
    return [(pipeline.stored.manifest.name, pipeline.stored.manifest.version) for pipeline in runtime.models]


def answers(runtime: Runtime, version: str | None = None, name: str | None = None) -> str:
    """The version that is found."""
    return runtime.find(name, version).stored.manifest.version


async def ask(runtime: Runtime, seed: int = 0, name: str | None = None, version: str | None = None) -> str:
    """Send an image; fails unless the answer is that of the version that is said to have answered; that version."""
    with runtime.use(name, version) as pipeline:
        (best,) = await pipeline.run(a_png(seed), pipeline.top(1), float("inf"))
        answered = pipeline.stored.manifest.version
    (wanted,) = expected(TinyModel(seed=int(answered)), seed, 1)
    assert (best.index, best.probability) == (wanted[1], pytest.approx(wanted[2], abs=1e-5))
    return answered


@asynccontextmanager
async def constant_load(runtime: Runtime, clients: int = 4, **asked: str | None) -> AsyncIterator[list[str]]:
    """Clients that send one image after the other while the block lasts; gives who answered, in order."""
    seen: list[str] = []
    failed: list[ServiceError] = []
    seeds = itertools.count()
    stopping = False

    async def client() -> None:
        while not stopping:
            try:
                seen.append(await ask(runtime, next(seeds) % 50, **asked))
            except ServiceError as error:
                failed.append(error)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        yield seen
    finally:
        stopping = True
        await asyncio.gather(*tasks)
    assert not failed
