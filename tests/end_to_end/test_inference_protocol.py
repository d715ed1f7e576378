"""The Open Inference Protocol, asked by Triton's own clients; answers equal those of /v1/classify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from tests.end_to_end.conftest import Reference, Server, free_port, picture, running

MODEL = "cifar10-resnet16"
Served = tuple[Server, int]


@pytest.fixture(scope="module")
def both() -> Iterator[Served]:
    """A service with both protocols, in fp32, and its gRPC port."""
    port = free_port()
    with running(RESNET_PRECISION="fp32", RESNET_GRPC_PORT=str(port)) as server:
        yield server, port


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, both: Served) -> Iterator[tuple[Any, Any]]:
    """A client's module, and a client of it."""
    server, port = both
    if request.param == "http":
        with http_client.InferenceServerClient(server.url.removeprefix("http://")) as client:
            yield http_client, client
    else:
        with grpc_client.InferenceServerClient(f"127.0.0.1:{port}") as client:
            yield grpc_client, client


def encoded(module: Any, *images: bytes) -> Any:
    tensor = module.InferInput("image", [len(images)], "BYTES")
    array = np.empty(len(images), np.object_)
    array[:] = images
    return tensor.set_data_from_numpy(array)


def pixels(module: Any, array: np.ndarray[Any, Any]) -> Any:
    return module.InferInput("image", list(array.shape), "UINT8").set_data_from_numpy(array)


def classified(server: Server, data: bytes) -> dict[str, float]:
    response = httpx.post(f"{server.url}/v1/classify", params={"top_k": 10}, content=data)
    return {p["label"]: p["probability"] for p in response.json()["results"][0]["predictions"]}


def test_live_ready_and_metadata(triton: tuple[Any, Any]) -> None:
    module, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "2")
    as_json = {"as_json": True} if module is grpc_client else {}
    server = client.get_server_metadata(**as_json)
    assert server["name"] == "resnet-serving"
    assert "classification" in server["extensions"]
    model = client.get_model_metadata(MODEL, **as_json)
    assert (model["name"], model["versions"]) == (MODEL, ["2"])
    outputs = {output["name"]: [int(size) for size in output["shape"]] for output in model["outputs"]}
    expected = {"probabilities": [-1, 10], "logits": [-1, 10], "embedding": [-1, 128], "cam": [-1, 5, 8, 8]}
    assert outputs == expected
    assert model["inputs"][0]["name"] == "image"


def test_answers_equal_those_of_classify(triton: tuple[Any, Any], both: Served, reference: Reference) -> None:
    module, client = triton
    images = [picture(seed) for seed in range(3)]
    result = client.infer(MODEL, [encoded(module, *images)], request_id="an-id")
    probabilities, logits = result.as_numpy("probabilities"), result.as_numpy("logits")
    assert probabilities.shape == logits.shape == (3, 10)
    assert probabilities.dtype == logits.dtype == np.float32
    for data, row in zip(images, probabilities, strict=True):
        found = classified(both[0], data)
        assert dict(zip(reference.labels, row.tolist(), strict=True)) == pytest.approx(found, abs=1e-5)
    response = result.get_response()
    got_id = response["id"] if module is http_client else response.id
    assert got_id == "an-id"


def test_every_output(triton: tuple[Any, Any]) -> None:
    module, client = triton
    names = ["cam", "embedding", "logits", "probabilities"]
    wanted = [module.InferRequestedOutput(name) for name in names]
    result = client.infer(MODEL, [encoded(module, picture(1), picture(2))], outputs=wanted, model_version="2")
    shapes = [result.as_numpy(name).shape for name in names]
    assert shapes == [(2, 5, 8, 8), (2, 128), (2, 10), (2, 10)]
    # A map's mean and the bias of its class are the class' logit; the bias is the same for both images.
    best = np.sort(result.as_numpy("logits"))[:, ::-1][:, :5]
    assert np.abs(best - result.as_numpy("cam").mean(axis=(2, 3))).max() < 10


def test_pixels_are_taken_as_a_lossless_file_is(triton: tuple[Any, Any]) -> None:
    from PIL import Image

    module, client = triton
    array = np.random.default_rng(3).integers(0, 256, (2, 50, 40, 3), dtype=np.uint8)
    files = []
    for one in array:
        import io

        file = io.BytesIO()
        Image.fromarray(one).save(file, "PNG")
        files.append(file.getvalue())
    by_file = client.infer(MODEL, [encoded(module, *files)]).as_numpy("logits")
    by_pixels = client.infer(MODEL, [pixels(module, array)]).as_numpy("logits")
    np.testing.assert_allclose(by_pixels, by_file, atol=1e-4)
