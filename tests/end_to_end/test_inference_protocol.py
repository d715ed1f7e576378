"""The Open Inference Protocol, asked by Triton's own clients; answers equal those of /v1/classify."""

from __future__ import annotations

import asyncio
import base64
import io
import queue
import signal
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from PIL import Image
from tritonclient.utils import InferenceServerException

from model_store.store import EMBEDDED_MODELS, ModelStore
from tests.end_to_end.conftest import Reference, Server, free_port, picture, running
from tests.end_to_end.test_operation import start_and_fail

MODEL = "cifar10-resnet16"
VERSION = ModelStore(EMBEDDED_MODELS).newest(MODEL)
Served = tuple[Server, int]
Triton = tuple[Any, Any]


@pytest.fixture(scope="module")
def both() -> Iterator[Served]:
    """A service with both protocols, in fp32, and its gRPC port."""
    port = free_port()
    with running(RESNET_PRECISION="fp32", RESNET_GRPC_PORT=str(port)) as server:
        yield server, port


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, both: Served) -> Iterator[Triton]:
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


def test_live_ready_and_metadata(triton: Triton) -> None:
    module, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, VERSION)
    as_json = {"as_json": True} if module is grpc_client else {}
    server = client.get_server_metadata(**as_json)
    assert server["name"] == "resnet-serving"
    assert "classification" in server["extensions"]
    model = client.get_model_metadata(MODEL, **as_json)
    assert (model["name"], model["versions"]) == (MODEL, [VERSION])
    outputs = {output["name"]: [int(size) for size in output["shape"]] for output in model["outputs"]}
    expected = {"probabilities": [-1, 10], "logits": [-1, 10], "embedding": [-1, 128], "cam": [-1, 10, 8, 8]}
    assert outputs == expected
    assert model["inputs"][0]["name"] == "image"


def test_answers_equal_those_of_classify(triton: Triton, both: Served, reference: Reference) -> None:
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


def test_every_output(triton: Triton) -> None:
    module, client = triton
    names = ["cam", "embedding", "logits", "probabilities"]
    wanted = [module.InferRequestedOutput(name) for name in names]
    result = client.infer(MODEL, [encoded(module, picture(1), picture(2))], outputs=wanted, model_version=VERSION)
    shapes = [result.as_numpy(name).shape for name in names]
    assert shapes == [(2, 10, 8, 8), (2, 128), (2, 10), (2, 10)]
    # A map's mean and the bias of its class are the class' logit; the bias is the same for both images.
    logits, means = result.as_numpy("logits"), result.as_numpy("cam").mean(axis=(2, 3))
    order = np.argsort(-logits, axis=1)
    biases = np.empty_like(logits)
    np.put_along_axis(biases, order, np.take_along_axis(logits, order, axis=1) - means, axis=1)
    np.testing.assert_allclose(biases[0], biases[1], atol=1e-3)


def test_pixels_are_taken_as_a_lossless_file_is(triton: Triton) -> None:
    module, client = triton
    files = [picture(seed, (50, 40), "PNG") for seed in (1, 2)]
    array = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in files])
    by_file = client.infer(MODEL, [encoded(module, *files)]).as_numpy("logits")
    by_pixels = client.infer(MODEL, [pixels(module, array)]).as_numpy("logits")
    np.testing.assert_allclose(by_pixels, by_file, atol=1e-4)
    small = np.ascontiguousarray(array[:, :32, :32])
    parameters = {"preprocessed": True}
    ready = client.infer(MODEL, [pixels(module, small)], parameters=parameters).as_numpy("logits")
    np.testing.assert_allclose(ready, client.infer(MODEL, [pixels(module, small)]).as_numpy("logits"), atol=1e-4)
    with pytest.raises(InferenceServerException, match=r"must be UINT8 \[n, 32, 32, 3\]"):
        client.infer(MODEL, [pixels(module, array)], parameters=parameters)


def test_classification(triton: Triton, both: Served) -> None:
    module, client = triton
    wanted = [module.InferRequestedOutput("probabilities", class_count=3)]
    images = [picture(1), picture(2)]
    strings = client.infer(MODEL, [encoded(module, *images)], outputs=wanted).as_numpy("probabilities")
    assert strings.shape == (2, 3)
    for data, row in zip(images, strings, strict=True):
        best = sorted(classified(both[0], data).items(), key=lambda item: -item[1])[:3]
        for string, (label, probability) in zip(row, best, strict=True):
            value, _, name = string.decode().split(":")
            assert name == label
            assert float(value) == pytest.approx(probability, abs=1e-5)


def test_json_alone(both: Served) -> None:
    data = picture(4)
    with http_client.InferenceServerClient(both[0].url.removeprefix("http://")) as client:
        tensor = http_client.InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([base64.b64encode(data)], np.object_), binary_data=False)
        wanted = [
            http_client.InferRequestedOutput("logits", binary_data=False),
            http_client.InferRequestedOutput("probabilities", binary_data=False, class_count=2),
        ]
        as_json = client.infer(MODEL, [tensor], outputs=wanted)
        binary = client.infer(MODEL, [encoded(http_client, data)])
        np.testing.assert_allclose(as_json.as_numpy("logits"), binary.as_numpy("logits"), atol=1e-5)
        assert as_json.as_numpy("probabilities").shape == (1, 2)
        array = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
        tensor = http_client.InferInput("image", [1, 32, 32, 3], "UINT8").set_data_from_numpy(array, binary_data=False)
        as_json = client.infer(MODEL, [tensor])
        binary = client.infer(MODEL, [pixels(http_client, array)])
        np.testing.assert_allclose(as_json.as_numpy("logits"), binary.as_numpy("logits"), atol=1e-5)


def test_packed_requests(both: Served) -> None:
    server, port = both
    with http_client.InferenceServerClient(server.url.removeprefix("http://")) as client:
        for packing in ("gzip", "deflate"):
            options = {"request_compression_algorithm": packing, "response_compression_algorithm": packing}
            found = client.infer(MODEL, [encoded(http_client, picture(1))], **options)
            assert found.as_numpy("logits").shape == (1, 10)
    with grpc_client.InferenceServerClient(f"127.0.0.1:{port}") as client:
        found = client.infer(MODEL, [encoded(grpc_client, picture(1))], compression_algorithm="gzip")
        assert found.as_numpy("logits").shape == (1, 10)


def test_aio_clients(both: Served) -> None:
    server, port = both

    expected = [sorted(classified(server, picture(seed)).values()) for seed in range(8)]

    async def ask(module: Any, client: Any, seed: int) -> None:
        data = picture(seed)
        result = await client.infer(MODEL, [encoded(module, data)], request_id=str(seed))
        (row,) = result.as_numpy("probabilities").tolist()
        assert sorted(row) == pytest.approx(expected[seed], abs=1e-5)

    async def all_of_them() -> None:
        async with http_aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            await asyncio.gather(*(ask(http_aio, client, seed) for seed in range(8)))
        async with grpc_aio.InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert await client.is_server_ready()
            await asyncio.gather(*(ask(grpc_aio, client, seed) for seed in range(8)))

    asyncio.run(all_of_them())


@pytest.mark.parametrize(
    ("model", "version", "images", "output", "http_status", "grpc_status", "says"),
    [
        ("nobody", "", [picture(1)], "logits", "404", "NOT_FOUND", "no model 'nobody'"),
        (MODEL, "99", [picture(1)], "logits", "404", "NOT_FOUND", "version '99'"),
        (MODEL, "", [picture(1)], "nothing", "400", "INVALID_ARGUMENT", "unknown output 'nothing'"),
        (MODEL, "", [picture(1), b"text"], "logits", "415", "INVALID_ARGUMENT", "image 1 of 2"),
        (MODEL, "", [picture(1)] * 65, "logits", "413", "INVALID_ARGUMENT", "too many images"),
    ],
)
def test_errors_as_clients_tell_them(
    triton: Triton,
    model: str,
    version: str,
    images: list[bytes],
    output: str,
    http_status: str,
    grpc_status: str,
    says: str,
) -> None:
    module, client = triton
    wanted = [module.InferRequestedOutput(output)]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [encoded(module, *images)], model_version=version, outputs=wanted)
    assert caught.value.status() == (http_status if module is http_client else f"StatusCode.{grpc_status}")
    assert says in caught.value.message()
    assert client.is_model_ready(model, version) == (http_status != "404") if module is http_client else True


def test_what_is_not_there_says_so(triton: Triton) -> None:
    _, client = triton
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_config(MODEL)
    assert caught.value.status() in ("404", "StatusCode.UNIMPLEMENTED")
    assert isinstance(caught.value.message(), str)


def test_deadline_and_cancellation(both: Served) -> None:
    with grpc_client.InferenceServerClient(f"127.0.0.1:{both[1]}") as client:
        tensors = [encoded(grpc_client, *[picture(1, (2000, 2000))] * 8)]
        with pytest.raises(InferenceServerException) as caught:
            client.infer(MODEL, tensors, client_timeout=0.001)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        with pytest.raises(InferenceServerException) as caught:
            client.infer(MODEL, tensors, timeout=1)  # a microsecond, which the service keeps
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        told: queue.Queue[Any] = queue.Queue()
        call = client.async_infer(MODEL, tensors, lambda result, error: told.put(error))
        call.cancel()
        assert told.get(timeout=30).status() == "StatusCode.CANCELLED"
        assert client.infer(MODEL, tensors).as_numpy("logits").shape == (8, 10)


def test_a_stream(both: Served) -> None:
    told: queue.Queue[Any] = queue.Queue()
    with grpc_client.InferenceServerClient(f"127.0.0.1:{both[1]}") as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        for number, data in enumerate([picture(1), b"text", picture(2)]):
            client.async_stream_infer(MODEL, [encoded(grpc_client, data)], request_id=str(number))
        answers = [told.get(timeout=30) for _ in range(3)]
        client.stop_stream()
    assert [error is None for _, error in answers] == [True, False, True]
    assert [result.get_response().id for result, _ in answers if result] == ["0", "2"]
    assert "no image" in answers[1][1].message()


def test_calls_are_in_the_metrics(both: Served) -> None:
    server, port = both
    with grpc_client.InferenceServerClient(f"127.0.0.1:{port}") as client:
        client.infer(MODEL, [encoded(grpc_client, picture(1))])
    page = httpx.get(f"{server.url}/metrics").text
    assert any('route="grpc/ModelInfer"' in line and 'code="200"' in line for line in page.splitlines())


@pytest.mark.slow
def test_workers_share_the_port_and_answer_what_they_took_at_the_end() -> None:
    port = free_port()
    with running(workers=2, RESNET_GRPC_PORT=str(port)) as server:
        with grpc_client.InferenceServerClient(f"127.0.0.1:{port}") as client:
            told: queue.Queue[Any] = queue.Queue()
            tensors = [encoded(grpc_client, *[picture(1, (1500, 1500))] * 8)]
            client.infer(MODEL, tensors)  # connected
            client.async_infer(MODEL, tensors, lambda result, error: told.put((result, error)))
            assert client.is_server_live()  # behind it on the same connection, so the first is there, too
            server.process.send_signal(signal.SIGTERM)
            result, error = told.get(timeout=60)
            assert error is None
            assert result.as_numpy("logits").shape == (8, 10)
        assert server.stop() == 0


def test_a_port_that_another_program_has_stops_the_start() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        output = start_and_fail(RESNET_GRPC_PORT=str(port))
    assert f"RESNET_GRPC_PORT={port}: Address already in use" in output
