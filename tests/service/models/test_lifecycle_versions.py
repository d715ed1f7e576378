"""Which versions of a model are served: aliases and policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.store import ModelStore
from service.errors import UnknownModel
from service.runtime import Runtime
from tests.service.models.conftest import answers, ask, publish, serve, served


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
