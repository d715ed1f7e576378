from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.http.schemas import Embeddings
from service.runtime import Runtime
from tests.service.conftest import TinyModel, a_picture, a_png, encode, publish_tiny
from tests.service.http.conftest import Exchange, answer, check_error, files, serve

URL = "/v1/embed"


def colours(*seeds: int) -> Any:
    """The tiny model's embeddings, as numpy computes them."""
    return np.stack([np.asarray(a_picture(seed)).astype(np.float64).mean(axis=(0, 1)) for seed in seeds])


def numbers(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    if response.headers["content-type"] == "application/x-npy":
        return np.load(io.BytesIO(response.content))
    assert response.headers["content-type"] == "application/octet-stream"
    return np.frombuffer(response.content, "<f4").reshape(-1, 3)


@pytest.mark.parametrize("headers", [{}, {"accept": "application/json"}, {"accept": "text/html, */*;q=0.1"}])
def test_as_json(tiny_root: Path, headers: dict[str, str]) -> None:
    response = answer(tiny_root, "POST", URL, files=files(a_png(0), a_png(1)), headers=headers)
    body = Embeddings.model_validate_json(response.content, strict=True)
    assert (body.model.name, body.model.version, body.dimensions) == ("tiny", "1", 3)
    found = [result["embedding"] for result in response.json()["results"]]
    np.testing.assert_allclose(found, colours(0, 1), rtol=1e-5)
    assert list(response.json()) == ["model", "results", "dimensions", "request_id"]


@pytest.mark.parametrize("media_type", ["application/octet-stream", "application/x-npy"])
@pytest.mark.parametrize("count", [1, 5])
def test_as_numbers(tiny_root: Path, media_type: str, count: int) -> None:
    images = [a_png(seed) for seed in range(count)]
    response = answer(tiny_root, "POST", URL, files=files(*images), headers={"accept": media_type})
    assert response.headers["content-type"] == media_type
    found = numbers(response)
    assert (found.dtype, found.shape) == (np.dtype("<f4"), (count, 3))
    np.testing.assert_allclose(found, colours(*range(count)), rtol=1e-5)


def test_json_and_numbers_are_the_same_to_the_last_bit(tiny_root: Path) -> None:
    as_json = answer(tiny_root, "POST", URL, content=a_png(3)).json()["results"][0]["embedding"]
    as_numbers = numbers(answer(tiny_root, "POST", URL, content=a_png(3), headers={"accept": "application/x-npy"}))
    assert np.array_equal(np.array(as_json, np.float32), as_numbers[0])


@pytest.mark.parametrize("accept", ["application/json", "application/octet-stream"])
def test_normalised(tiny_root: Path, accept: str) -> None:
    response = answer(tiny_root, "POST", f"{URL}?normalize=true", content=a_png(2), headers={"accept": accept})
    found = response.json()["results"][0]["embedding"] if accept == "application/json" else numbers(response)[0]
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found, colours(2)[0] / np.linalg.norm(colours(2)[0]), rtol=1e-5)


def test_nothing_but_zeros_stays_that(tiny_root: Path) -> None:
    black = encode(a_picture().point(lambda _: 0))
    response = answer(tiny_root, "POST", f"{URL}?normalize=true", content=black)
    assert response.json()["results"][0]["embedding"] == [0, 0, 0]


@pytest.mark.parametrize("value", ["2", "", "maybe"])
def test_normalize_is_true_or_false(tiny_root: Path, value: str) -> None:
    response = answer(tiny_root, "POST", f"{URL}?normalize={value}", content=a_png())
    assert check_error(response, 400, "bad_request").startswith("normalize: ")


def test_a_bad_image_among_several(tiny_root: Path) -> None:
    form = files(a_png(0), b"no image", a_png(1))
    body = answer(tiny_root, "POST", URL, files=form).json()
    assert ["embedding" in result for result in body["results"]] == [True, False, True]
    assert body["results"][1]["error"]["code"] == "not_an_image"
    response = answer(tiny_root, "POST", URL, files=form, headers={"accept": "application/octet-stream"})
    assert check_error(response, 415, "not_an_image").startswith("images[1]: ")


def test_a_bad_image_alone(tiny_root: Path) -> None:
    for accept in ("application/json", "application/x-npy"):
        response = answer(tiny_root, "POST", URL, content=b"no image", headers={"accept": accept})
        assert check_error(response, 415, "not_an_image").startswith("the data is no image")


def test_what_cannot_be_had_is_refused_before_the_body(tmp_path: Path) -> None:
    publish_tiny(tmp_path, model=TinyModel())
    publish_tiny(tmp_path, "bare", model=TinyModel(maps=0))

    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        for headers, query, status, code in (
            ({"accept": "image/png, application/json;q=0"}, "", 406, "not_acceptable"),
            ({"accept": "*/*;q=0"}, "", 406, "not_acceptable"),
            ({}, "model=bare", 422, "missing_output"),
            ({}, "top_k=1", 400, "bad_request"),
        ):
            exchange = Exchange(runtime, headers, path=URL, query=query)
            check_error(await exchange.response(), status, code)
            assert exchange.received == 0

    serve(tmp_path, use, models="tiny,bare")
