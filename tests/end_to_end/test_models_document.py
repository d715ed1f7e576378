"""The requests of docs/models.md, in their order, to a service with a store like the one they speak of."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from model_store.store import ModelStore
from tests.end_to_end.conftest import ROOT, Server, picture, running
from tests.end_to_end.test_lifecycle import NAME, publish, until

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "models.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
REQUESTS = [line for line in LINES if line.startswith("curl ")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two versions, the second the canary in the shadow; with the key that the page names."""
    store = tmp_path_factory.mktemp("store")
    for version in ("1", "2"):
        publish(store, version)
    ModelStore(store).promote(NAME, "1")
    ModelStore(store).set_alias(NAME, "canary", "2")
    (start,) = (line for line in LINES if line.endswith("make serve"))
    settings = dict(word.split("=") for word in shlex.split(start) if "=" in word)
    settings |= {"RESNET_MODEL_STORE": str(store), "RESNET_CANARY_SHARE": "1", "RESNET_CANARY_MODE": "shadow"}
    with running("make", "serve", **settings) as started:
        yield started


def send(command: str, url: str) -> Any:
    """What ``command`` would print; done here, as a machine with nothing but Python need not have curl."""
    words = iter(shlex.split(command.replace("localhost:3000", url))[1:])
    method, target, headers, content = "", "", {}, None
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "--data-binary":
            content = (ROOT / next(words).removeprefix("@")).read_bytes()
        else:
            target = word
    method = method or ("GET" if content is None else "POST")
    return httpx.request(method, target, headers=headers, content=content, timeout=60).raise_for_status().json()


def keys(value: Any) -> Any:
    return {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None


def test_the_page_is_true(server: Server) -> None:
    assert len(REQUESTS) == 7
    canary, models, model, shadow, index, unload, load = REQUESTS
    assert send(canary, server.url)["model"] == {"name": NAME, "version": "2"}
    assert [m["aliases"] for m in send(models, server.url)["models"]] == [["stable"], ["canary"]]
    assert send(model, server.url)["aliases"] == {"stable": "1", "canary": "2"}

    def compared() -> bool:
        assert httpx.post(f"{server.url}/v1/classify", content=picture(1)).json()["model"]["version"] == "1"
        return bool(send(shadow, server.url)["compared"] > 5)

    until(compared, "a comparison")
    found = send(shadow, server.url)
    assert found["agreement"] == 1.0, "both are the same network"
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert keys(httpx.Response(200, text=shown).json()) == keys(found)

    assert {row["state"] for row in send(index, server.url)} == {"READY"}
    assert {row["state"] for row in send(unload, server.url)} <= {"UNLOADING", "UNAVAILABLE"}
    assert {row["state"] for row in send(load, server.url)} <= {"READY", "UNLOADING"}
    assert httpx.post(f"{server.url}/v1/classify", content=picture(1)).status_code == 200
