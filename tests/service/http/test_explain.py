from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from model_store.store import EMBEDDED_MODELS, ModelStore
from service.http.schemas import Explained
from service.inference.heatmap import draw
from service.providers import ProviderUnavailable
from service.runtime import Runtime
from tests.service.conftest import MAPS, SIDE, Hold, TinyModel, a_picture, a_png, encode, expected, publish_tiny
from tests.service.http.conftest import Exchange, answer, check_error, files, serve

URL = "/v1/explain"
PNG = {"accept": "image/png"}


def pixels(image: Image.Image, mode: str = "RGB") -> npt.NDArray[Any]:
    return np.asarray(image.convert(mode)).astype(int)


def picture(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(response.content), formats=["PNG"]) as image:
        image.load()
        return image


# JSON


def test_as_json(tiny_root: Path, tiny: TinyModel) -> None:
    response = answer(tiny_root, "POST", URL, content=a_png(1))
    Explained.model_validate_json(response.content, strict=True)
    (result,) = response.json()["results"]
    assert list(result) == ["heatmap", "predictions"]
    assert [p["label"] for p in result["predictions"]] == [e[0] for e in expected(tiny, 1, 5)]
    heatmap = result["heatmap"]
    assert heatmap["label"] == result["predictions"][0]["label"]
    np.testing.assert_allclose(
        heatmap["grid"], tiny.map_of(np.asarray(a_picture(1)), heatmap["index"]), rtol=1e-4, atol=1e-4
    )


def test_it_is_what_classify_says(tiny_root: Path) -> None:
    (explained,) = answer(tiny_root, "POST", URL, content=a_png(1)).json()["results"]
    url = "/v1/classify?include=predictions,heatmap"
    (classified,) = answer(tiny_root, "POST", url, content=a_png(1)).json()["results"]
    assert explained == classified


def test_a_class_and_a_class_without_a_map(tiny_root: Path, tiny: TinyModel) -> None:
    ranked = [e[1] for e in expected(tiny, 1, 7)]
    response = answer(tiny_root, "POST", f"{URL}?class={ranked[MAPS - 1]}", content=a_png(1))
    assert response.json()["results"][0]["heatmap"]["index"] == ranked[MAPS - 1]
    for headers in ({}, PNG):
        response = answer(tiny_root, "POST", f"{URL}?class={ranked[MAPS]}", content=a_png(1), headers=headers)
        check_error(response, 422, "no_heatmap")


def test_many_images_with_a_bad_one(tiny_root: Path) -> None:
    results = answer(tiny_root, "POST", URL, files=files(a_png(0), b"bad", a_png(1))).json()["results"]
    assert ["heatmap" in result for result in results] == [True, False, True]


def test_the_part_that_the_network_saw(tiny_root: Path) -> None:
    """The model resizes to 8 and takes the middle 8: of a wide image the middle square."""
    response = answer(tiny_root, "POST", URL, content=encode(a_picture(size=(40, 16))))
    heatmap = response.json()["results"][0]["heatmap"]
    assert heatmap["box"] == [12, 0, 28, 16]
    assert heatmap["image"] == {"width": 40, "height": 16}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("decode_threads", [0, 1])
def test_an_image_that_is_turned_is_explained_upright(tiny_root: Path, orientation: int, decode_threads: int) -> None:
    """The same map, box and picture whichever way the pixels lie in the file."""
    upright = a_picture(7, (24, 12)).resize((48, 24), Image.Resampling.BICUBIC)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's numbers of the turns that undo them
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, exif=exif)

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        found, wanted = [
            (await client.post(URL, content=content)).json()["results"][0]["heatmap"]
            for content in (data, encode(upright))
        ]
        assert found["image"] == wanted["image"] == {"width": 48, "height": 24}
        assert found["box"] == wanted["box"] == [12, 0, 36, 24]
        # Turned after the resize, so pixels may be a level apart.
        np.testing.assert_allclose(found["grid"], wanted["grid"], atol=0.2)
        turned, plain = [
            pixels(picture(await client.post(URL, content=content, headers=PNG))) for content in (data, encode(upright))
        ]
        assert turned.shape == (24, 48, 3)
        assert np.array_equal(turned[:, :12], pixels(upright)[:, :12])
        assert np.abs(turned - plain).mean() < 3

    serve(tiny_root, use, decode_threads=decode_threads)


# PNG


def test_an_overlay(tiny_root: Path) -> None:
    image = a_picture(3, (40, 16))
    found = picture(answer(tiny_root, "POST", f"{URL}?opacity=0.25", content=encode(image), headers=PNG))
    assert (found.size, found.mode) == ((40, 16), "RGB")
    beside = np.ones((16, 40), bool)
    beside[:, 12:28] = False
    assert np.array_equal(pixels(found)[beside], pixels(image)[beside])
    alone = picture(answer(tiny_root, "POST", f"{URL}?style=heatmap", content=encode(image)))
    blended = 0.75 * pixels(image)[:, 12:28] + 0.25 * pixels(alone)[:, 12:28]
    assert np.abs(pixels(found)[:, 12:28] - blended).max() <= 1


def test_the_map_alone(tiny_root: Path) -> None:
    found = picture(answer(tiny_root, "POST", f"{URL}?style=heatmap&colormap=turbo", content=a_png(2), headers=PNG))
    assert found.size == (SIDE, SIDE)
    assert (pixels(found, "RGBA")[..., 3] == 255).all()
    grid = np.array(answer(tiny_root, "POST", URL, content=a_png(2)).json()["results"][0]["heatmap"]["grid"])
    highest = np.unravel_index(grid.argmax(), grid.shape)
    assert pixels(found)[highest].tolist() == pytest.approx([122, 4, 3], abs=3), "turbo's last colour"


@pytest.mark.parametrize(
    ("query", "accept", "kind"),
    [
        ("", None, "application/json"),
        ("", "*/*", "application/json"),
        ("", "image/*", "image/png"),
        ("?style=overlay", None, "image/png"),
        ("?style=overlay", "*/*", "image/png"),
        ("?style=overlay", "application/json", "application/json"),
        ("?style=overlay", "image/png;q=0.1, application/json", "application/json"),
        ("?opacity=0.1&colormap=grey", None, "application/json"),
    ],
)
def test_which_form_the_answer_has(tiny_root: Path, query: str, accept: str | None, kind: str) -> None:
    headers = {} if accept is None else {"accept": accept}
    response = answer(tiny_root, "POST", URL + query, content=a_png(), headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (200, kind)


def test_a_png_is_of_one_image(tiny_root: Path) -> None:
    response = answer(tiny_root, "POST", URL, files=files(a_png(0), a_png(1)), headers=PNG)
    assert "one image" in check_error(response, 400, "bad_request")


def test_a_bad_image_is_no_picture(tiny_root: Path) -> None:
    check_error(answer(tiny_root, "POST", URL, content=b"bad", headers=PNG), 415, "not_an_image")


def test_what_cannot_be_had_is_refused_before_the_body(tmp_path: Path) -> None:
    publish_tiny(tmp_path, model=TinyModel())
    publish_tiny(tmp_path, "bare", model=TinyModel(maps=0))

    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        for headers, query, status, code in (
            ({"accept": "image/jpeg"}, "", 406, "not_acceptable"),
            ({"accept": "image/jpeg"}, "style=overlay", 406, "not_acceptable"),
            ({}, "model=bare", 422, "missing_output"),
            (PNG, "model=bare", 422, "missing_output"),
            ({}, "style=", 400, "bad_request"),
            (PNG, "opacity=2", 400, "bad_request"),
            (PNG, "colormap=jet", 400, "bad_request"),
            (PNG, "class=none", 400, "bad_request"),
            ({}, "top_k=1", 400, "bad_request"),
        ):
            exchange = Exchange(runtime, headers, path=URL, query=query)
            check_error(await exchange.response(), status, code)
            assert exchange.received == 0

    serve(tmp_path, use, models="tiny,bare")


def test_others_are_answered_while_a_picture_is_drawn(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        hold = Hold(lambda heatmaps, colormap: draw(heatmaps[0], colormap))
        monkeypatch.setattr("service.http.explain.draw", lambda heatmap, colormap: hold([heatmap], colormap))
        task = asyncio.create_task(client.post(f"{URL}?style=heatmap", content=a_png(), headers=PNG))
        await hold.wait_entered()
        assert (await client.get("/v1/models")).status_code == 200
        hold.released.set()
        assert (await task).status_code == 200

    serve(tiny_root, use)


# The truth of a map


def head_bias(path: Path) -> npt.NDArray[np.float32]:
    """The bias of the linear layer that gives the logits, read from the ONNX file."""
    model = onnx.load(path)
    (gemm,) = (node for node in model.graph.node if list(node.output) == ["logits"])
    assert gemm.op_type == "Gemm"
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == gemm.input[2])
    return numpy_helper.to_array(bias)


@pytest.mark.parametrize(
    ("provider", "precision", "tolerance"),
    [
        ("cpu", "fp32", 1e-4),
        ("cpu", "int8", 1e-4),  # its head is float
        ("openvino", "fp32", 1e-4),
        ("openvino", "int8", 1e-4),
        ("openvino", "bf16", 0.1),
    ],
)
def test_the_mean_of_a_map_and_the_models_own_bias_are_the_logit(
    provider: str, precision: str, tolerance: float
) -> None:
    """By the weights in the file, which the service does not read: for every map that the graph has."""
    store = ModelStore(EMBEDDED_MODELS)
    stored = store.resolve(store.names()[0])
    assert stored.manifest.outputs.cam
    bias = head_bias(stored.path(stored.variant("int8" if precision == "int8" else "fp32")))

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        for seed in range(3):
            data = encode(a_picture(seed, (6, 5)).resize((60, 50), Image.Resampling.BICUBIC))
            classified = await client.post(f"/v1/classify?top_k={stored.manifest.outputs.cam.k}", content=data)
            for prediction in classified.json()["results"][0]["predictions"]:
                response = await client.post(URL, params={"class": prediction["index"]}, content=data)
                heatmap = response.json()["results"][0]["heatmap"]
                assert heatmap["index"] == prediction["index"]
                exact = np.mean(heatmap["grid"]) + bias[heatmap["index"]]
                assert heatmap["logit"] == pytest.approx(exact, abs=tolerance)
                assert heatmap["bias"] == pytest.approx(bias[heatmap["index"]], abs=tolerance)

    try:
        serve(EMBEDDED_MODELS, use, provider=provider, precision=precision)
    except ProviderUnavailable as error:
        pytest.skip(f"this machine cannot run it: {error}")
