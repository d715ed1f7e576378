"""Real images over real sockets; every answer is compared with ONNX Runtime's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import numpy as np
import pytest

from export.images.files import read_images
from tests.end_to_end.conftest import Reference, Server, picture


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_raw_image_of_each_default_format(client: httpx.Client, reference: Reference, form: str) -> None:
    data = picture(1, form=form)
    response = client.post("/v1/classify", content=data)
    assert response.status_code == 200
    answer = response.json()
    assert answer["model"] == {"name": reference.manifest.name, "version": reference.manifest.version}
    assert answer["request_id"] == response.headers["x-request-id"]
    assert len(answer["results"]) == 1
    reference.check(answer["results"][0]["predictions"], data)


def test_the_content_decides_not_the_header(client: httpx.Client) -> None:
    headers = {"content-type": "text/plain"}
    assert client.post("/v1/classify", content=picture(1), headers=headers).status_code == 200


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 31), (2000, 10), (1500, 2000)])
def test_an_image_of_any_size(client: httpx.Client, reference: Reference, size: tuple[int, int]) -> None:
    data = picture(2, size, "PNG")
    response = client.post("/v1/classify", content=data)
    assert response.status_code == 200
    reference.check(response.json()["results"][0]["predictions"], data)


def test_one_file_in_a_form(client: httpx.Client, reference: Reference) -> None:
    data = picture(3)
    response = client.post("/v1/classify", files={"image": ("photo.jpg", data)})
    assert response.status_code == 200
    (result,) = response.json()["results"]
    reference.check(result["predictions"], data)


def test_many_files_are_answered_in_order(client: httpx.Client, reference: Reference) -> None:
    images = [picture(seed) for seed in range(20)]
    files = [("image", (f"{i}.jpg", data)) for i, data in enumerate(images)]
    results = client.post("/v1/classify", files=files).json()["results"]
    assert len(results) == len(images)
    for result, data in zip(results, images, strict=True):
        reference.check(result["predictions"], data)


def test_a_bad_image_has_its_error_beside_the_answers_of_the_others(client: httpx.Client, reference: Reference) -> None:
    good, cut = picture(4), picture(5)[:-200]
    response = client.post("/v1/classify", files=[("a", good), ("b", cut), ("c", b"no image"), ("d", good)])
    assert response.status_code == 200
    first, second, third, fourth = response.json()["results"]
    reference.check(first["predictions"], good)
    assert second["error"]["code"] == "bad_image"
    assert third["error"]["code"] == "not_an_image"
    assert fourth == first


def test_top_k(client: httpx.Client, reference: Reference) -> None:
    data = picture(6)
    classes = len(reference.labels)
    for k in (1, classes):
        response = client.post("/v1/classify", content=data, params={"top_k": k})
        predictions = response.json()["results"][0]["predictions"]
        assert len(predictions) == k
        reference.check(predictions, data)
    assert sum(p["probability"] for p in predictions) == pytest.approx(1, abs=1e-4)


def test_a_model_and_version_by_name(client: httpx.Client, reference: Reference) -> None:
    params = {"model": reference.manifest.name, "version": reference.manifest.version}
    assert client.post("/v1/classify", content=picture(7), params=params).status_code == 200
    listed = client.get("/v1/models").json()["models"]
    assert params == {"model": listed[0]["name"], "version": listed[0]["version"]}
    assert listed[0]["labels"] == list(reference.labels)
    assert listed[0]["provider"] in {"cuda", "openvino", "cpu"}


def test_what_auto_takes_answers_nearly_as_fp32_does(
    serve: Callable[..., AbstractContextManager[Server]], reference: Reference
) -> None:
    """As near as the gate's page says: where fp32's margin is above the error of two logits, the answer is the same."""
    with serve() as server:
        (served,) = httpx.get(f"{server.url}/v1/models").json()["models"]
        images = [picture(seed) for seed in range(32)]
        form = [("image", data) for data in images]
        response = httpx.post(f"{server.url}/v1/classify?top_k=10", files=form, timeout=30)
    assert served["gated"]
    gate = reference.manifest.variant(served["precision"]).gate
    error = gate.max_absolute_error if gate else 0.0
    sure = 0
    for result, data in zip(response.json()["results"], images, strict=True):
        found = {p["label"]: p["probability"] for p in result["predictions"]}
        expected = reference.probabilities(data)
        assert found == pytest.approx(expected, abs=0.2)
        logits = reference.outputs(data)["logits"]
        second, first = np.sort(logits)[-2:]
        if first - second > 2 * error:
            sure += 1
            assert result["predictions"][0]["label"] == reference.labels[logits.argmax()]
    assert sure > 5


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("?top_k=0", picture(1), 400, "bad_request"),
        ("?top_k=11", picture(1), 400, "bad_request"),
        ("?top_k=five", picture(1), 400, "bad_request"),
        ("?topk=5", picture(1), 400, "bad_request"),
        ("", b"", 400, "bad_request"),
        ("?model=nobody", picture(1), 404, "unknown_model"),
        ("?version=999", picture(1), 404, "unknown_model"),
        ("", b"%PDF-1.7", 415, "not_an_image"),
        ("", picture(1, form="GIF"), 415, "not_an_image"),
        ("", picture(1)[:500], 422, "bad_image"),
    ],
)
def test_a_mistake_has_a_clear_answer(client: httpx.Client, query: str, body: bytes, status: int, code: str) -> None:
    response = client.post(f"/v1/classify{query}", content=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert "Traceback" not in response.text


def test_a_body_over_the_limit_is_refused(client: httpx.Client) -> None:
    too_large = bytes(33 * 2**20)
    assert client.post("/v1/classify", content=too_large).status_code == 413
    assert client.post("/v1/classify", content=iter([too_large[: 2**20]] * 33)).status_code == 413


def test_real_photos_raw_and_in_a_form(client: httpx.Client, reference: Reference, shared: Path) -> None:
    photos = [file.data for file in read_images(shared / "data" / "photos.zip")]
    for data in photos:
        response = client.post("/v1/classify", content=data)
        assert response.status_code == 200
        reference.check(response.json()["results"][0]["predictions"], data)
    form = client.post("/v1/classify", files=[("image", data) for data in photos])
    for result, data in zip(form.json()["results"], photos, strict=True):
        reference.check(result["predictions"], data)


def test_64_clients_at_once_each_get_their_own_answer(server: Server, reference: Reference) -> None:
    async def one(client: httpx.AsyncClient, seed: int) -> None:
        for round_ in range(3):
            data = picture(1000 + 64 * round_ + seed)
            response = await client.post("/v1/classify", content=data, headers={"x-request-id": f"client-{seed}"})
            assert response.status_code == 200
            assert response.json()["request_id"] == f"client-{seed}"
            reference.check(response.json()["results"][0]["predictions"], data)

    async def all_of_them() -> None:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            await asyncio.gather(*(one(client, seed) for seed in range(64)))

    asyncio.run(all_of_them())
