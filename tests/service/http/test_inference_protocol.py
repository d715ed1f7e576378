from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from service import __version__
from service.http.api import Api
from service.http.inference_body import JSON_LENGTH
from service.inference_protocol.tensors import join_strings
from service.metrics import Metrics
from service.process.workers import Workers
from service.runtime import Runtime
from tests.service.conftest import CLASSES, Hold, TinyModel, a_picture, a_png, eventually, some_settings
from tests.service.http.conftest import answer, serve

MODEL = "/v2/models/tiny"
INFER = f"{MODEL}/infer"


def raw(*images: bytes, **others: Any) -> dict[str, Any]:
    """What httpx sends: the images in binary form behind the JSON."""
    data = join_strings(images)
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "parameters": {"binary_data_size": len(data)},
    }
    head = orjson.dumps({"inputs": [tensor], **others})
    return {"content": head + data, "headers": {JSON_LENGTH: str(len(head))}}


def error(response: httpx.Response, status: int) -> str:
    """The message of an error in the protocol's form."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    assert ("retry-after" in response.headers) == (status in (429, 503))
    assert response.headers["x-request-id"]
    return str(response.json()["error"])


def test_metadata_and_health(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        server = (await client.get("/v2")).json()
        assert (server["name"], server["version"]) == ("resnet-serving", __version__)
        assert "binary_tensor_data" in server["extensions"]
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        for path in (MODEL, f"{MODEL}/versions/1"):
            model = (await client.get(path)).json()
            assert (model["name"], model["versions"]) == ("tiny", ["1"])
            assert model["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, CLASSES]}
            assert (await client.get(f"{path}/ready")).json() == {"name": "tiny", "ready": True}

    serve(tiny_root, use)


@pytest.mark.parametrize("path", [INFER, f"{MODEL}/versions/1/infer"])
def test_inference(tiny_root: Path, tiny: TinyModel, path: str) -> None:
    wanted = [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    response = answer(tiny_root, "POST", path, **raw(a_png(0), a_png(1), id="an-id", outputs=wanted))
    assert response.status_code == 200
    length = int(response.headers[JSON_LENGTH])
    head = orjson.loads(response.content[:length])
    assert (head["model_name"], head["model_version"], head["id"]) == ("tiny", "1", "an-id")
    logits = np.frombuffer(response.content[length:], "<f4").reshape(head["outputs"][0]["shape"])
    np.testing.assert_allclose(logits, tiny.logits([np.asarray(a_picture(0)), np.asarray(a_picture(1))]), atol=1e-4)
    assert np.sum(head["outputs"][1]["data"]) == pytest.approx(2, abs=1e-4)


def test_a_long_body_is_read_in_another_thread(tiny_root: Path) -> None:
    pixels = np.zeros((2, 200, 200, 3), np.uint8)
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape)}
    head = orjson.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": pixels.nbytes}}]})
    request = {"content": head + pixels.tobytes(), "headers": {JSON_LENGTH: str(len(head))}}
    response = answer(tiny_root, "POST", INFER, **request)
    assert [output["shape"] for output in response.json()["outputs"]] == [[2, CLASSES], [2, CLASSES]]


@pytest.mark.parametrize(
    ("method", "url", "request_", "status", "says"),
    [
        ("GET", "/v2/models/nobody", {}, 404, "no model 'nobody'"),
        ("GET", "/v2/models/nobody/ready", {}, 404, "no model 'nobody'"),
        ("GET", f"{MODEL}/versions/9/ready", {}, 404, "version '9'"),
        ("POST", "/v2/models/nobody/infer", raw(a_png()), 404, "no model 'nobody'"),
        ("POST", f"{MODEL}/versions/9/infer", raw(a_png()), 404, "version '9'"),
        ("GET", "/v2/no/such/thing", {}, 404, "nothing is here"),
        ("GET", "/v2/", {}, 404, "nothing is here"),
        ("GET", INFER, {}, 405, "takes POST"),
        ("GET", "/v2?x=1", {}, 400, "unknown query parameter"),
        ("POST", INFER, {}, 400, "the body is empty"),
        ("POST", INFER, {"content": b"{}"}, 400, "inputs must be a list"),
        ("POST", INFER, raw(a_png(), outputs=[{"name": "nothing"}]), 400, "unknown output 'nothing'"),
        ("POST", INFER, raw(a_png(), b"no image"), 415, "image 1 of 2: the data is no image"),
        ("POST", INFER, raw(a_png()[:60], a_png()), 422, "image 0 of 2: the png image cannot be decoded"),
        ("POST", INFER, raw(*[a_png()] * 65), 413, "at most 64"),
        ("POST", INFER, {"content": bytes(2**16 + 1)}, 413, "too large"),
    ],
)
def test_errors_have_the_protocols_form(
    tiny_root: Path, method: str, url: str, request_: dict[str, Any], status: int, says: str
) -> None:
    response = answer(tiny_root, method, url, environ={"max_body_bytes": 2**16}, **request_)
    assert says in error(response, status)


def test_a_full_gate_refuses_before_the_body_is_read(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        first = asyncio.create_task(client.post(INFER, **raw(a_png())))
        await hold.wait_entered()
        assert "busy" in error(await client.post(INFER, **raw(a_png(), a_png())), 429)
        second = asyncio.create_task(client.post(INFER, **raw(a_png())))
        await eventually(lambda: runtime.gate.images == 2)
        assert "busy" in error(await client.post(INFER, content=b"never read"), 429)
        hold.released.set()
        assert [(await task).status_code for task in (first, second)] == [200, 200]

    serve(tiny_root, use, max_queue=2)


def test_what_a_packed_body_unpacks_to_is_held(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        body = raw(bytes(10**6))
        packed = {"content": gzip.compress(body["content"]), "headers": {**body["headers"], "content-encoding": "gzip"}}
        runtime.gate.max_bytes = 10**5
        assert "as many bytes" in error(await client.post(INFER, **packed), 429)
        runtime.gate.max_bytes = 2 * 10**6
        assert "no image" in error(await client.post(INFER, **packed), 415)
        assert runtime.gate.bytes == 0

    serve(tiny_root, use)


def test_while_the_models_load(tiny_root: Path) -> None:
    async def use() -> None:
        transport = httpx.ASGITransport(Api(Runtime(some_settings(tiny_root), Metrics(None), Workers(None, 1))))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/v2/health/live")).status_code == 200
            for path in ("/v2/health/ready", f"{MODEL}/ready", MODEL):
                assert "loading" in error(await client.get(path), 503)

    asyncio.run(use())


def test_metrics_name_the_route_not_the_path(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        await client.post(INFER, **raw(a_png()))
        page = runtime.metrics.page().decode()
        line = next(line for line in page.splitlines() if line.startswith("resnet_requests_total") and "infer" in line)
        for label in ('route="/v2/models/{name}/infer"', 'model="tiny"', 'version="1"', 'code="200"'):
            assert label in line

    serve(tiny_root, use)
