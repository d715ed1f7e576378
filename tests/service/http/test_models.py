"""``/v1/models``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.store import ModelStore
from service.http import model_bodies, model_examples
from service.http.api import Api
from service.runtime import Runtime
from tests.service.conftest import CLASSES, TinyModel, a_gate, a_png, eventually, publish_tiny, serving, some_settings

Use = Callable[[httpx.AsyncClient, Runtime], Awaitable[None]]


def serve(root: Path, use: Use, **environ: object) -> None:
    async def with_client(runtime: Runtime) -> None:
        transport = httpx.ASGITransport(Api(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await use(client, runtime)

    serving(some_settings(root, watch_s=0, **environ), with_client)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``tiny`` in three versions: 1 promoted, 2 the canary with an int8 variant, 3 the newest."""
    for version in ("1", "2", "3"):
        others: dict[Any, Any] = {"int8": (TinyModel(seed=2), a_gate())} if version == "2" else {}
        publish_tiny(tmp_path, "tiny", version, TinyModel(seed=int(version)), others=others)
    store = ModelStore(tmp_path)
    store.promote("tiny", "1")
    store.set_alias("tiny", "canary", "2")
    return tmp_path


def test_all_that_is_served(root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        (root / "tiny" / "3" / "fp32.onnx").write_bytes(b"damaged")
        await runtime.lifecycle.refresh()
        answer = (await client.get("/v1/models")).json()
        assert [(m["version"], m["default"], m["aliases"]) for m in answer["models"]] == [
            ("1", True, ["stable"]),
            ("2", False, ["canary"]),
        ]
        assert answer["failed"] == answer["loading"] == [], "3 is not asked for, so nobody tried it"
        ModelStore(root).promote("tiny", None)
        await runtime.lifecycle.refresh()
        answer = (await client.get("/v1/models")).json()
        assert [m["version"] for m in answer["models"]] == ["1", "2"]
        (failed,) = answer["failed"]
        assert (failed["name"], failed["version"]) == ("tiny", "3")
        assert failed["reason"].startswith("tiny/3/fp32.onnx: ")

    serve(root, use)


def test_one_model(root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        found = (await client.get("/v1/models/tiny")).json()
        assert found["aliases"] == {"stable": "1", "canary": "2"}
        assert found["store"] == ["1", "2", "3"]
        assert (found["default"], found["unloaded"], found["problem"]) == (True, False, None)
        first, canary = found["versions"]
        assert first["outputs"] == {"classes": CLASSES, "embedding": 3, "cam": {"k": 3, "height": 8, "width": 8}}
        assert first["labels"] == list(TinyModel().labels)
        assert first["variants"][0]["reports"][0]["rule"] == "parity"
        assert first["calibration"] is None
        assert [(v["precision"], v["in_use"]) for v in canary["variants"]] == [("fp32", False), ("int8", True)]
        (gate,) = canary["variants"][1]["reports"]
        assert (gate["rule"], gate["provider"], gate["passed"]) == ("agreement", "cpu", True)

    serve(root, use)


def test_an_alias_is_asked_for_in_the_query(root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        for asked, version in (("canary", "2"), ("stable", "1"), ("2", "2")):
            answer = await client.post(f"/v1/classify?version={asked}", content=a_png())
            assert answer.json()["model"]["version"] == version
        wrong = await client.post("/v1/classify?version=beta", content=a_png())
        assert wrong.status_code == 404
        assert "tiny version 2 (canary)" in wrong.json()["error"]["message"]

    serve(root, use)


def test_a_model_that_is_not_there(root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        for path in ("/v1/models/none", "/v1/models/none/shadow", f"/v1/models/{'x' * 5000}"):
            answer = await client.get(path)
            assert answer.status_code == 404
            assert len(answer.text) < 400
        assert (await client.get("/v1/models?x=1")).status_code == 400

    serve(root, use)


def test_a_comparison(root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        empty = (await client.get("/v1/models/tiny/shadow")).json()
        assert (empty["stable"], empty["canary"], empty["mode"], empty["share"]) == ("1", "2", "shadow", 1.0)
        assert (empty["compared"], empty["agreement"], empty["since"]) == (0, None, None)
        assert empty["seconds"]["canary"] == {"p50": None, "p99": None}
        for seed in range(4):
            assert (await client.post("/v1/classify", content=a_png(seed))).json()["model"]["version"] == "1"
            await eventually(lambda seed=seed: runtime.shadows.report("tiny").compared == seed + 1)  # type: ignore
        found = (await client.get("/v1/models/tiny/shadow")).json()
        assert found["compared"] == found["seconds"]["images"] == 4
        assert found["agreement"] == found["agreed"] / 4
        assert 0 <= found["probability_difference"] <= 1
        assert 0 < found["seconds"]["stable"]["p50"] <= found["seconds"]["stable"]["p99"]
        ModelStore(root).set_alias("tiny", "canary", None)
        await runtime.lifecycle.refresh()
        gone = await client.get("/v1/models/tiny/shadow")
        assert "has no canary" in gone.json()["error"]["message"]

    serve(root, use, canary_share=1, canary_mode="shadow")


def test_examples_are_answers() -> None:
    model_bodies.ModelsBody.model_validate(model_examples.MODELS_EXAMPLE)
    model_bodies.ModelBody.model_validate(model_examples.MODEL_EXAMPLE)
    model_bodies.ShadowBody.model_validate(model_examples.SHADOW_EXAMPLE)
