"""Embeddings, heatmaps and pictures over real sockets, compared with ONNX Runtime's own outputs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model_store.transforms import crop_box, to_rgb
from tests.end_to_end.conftest import ROOT, Reference, picture, running
from tests.exports import exported

SHIP = (ROOT / "docs" / "images" / "ship.jpg").read_bytes()
PNG = {"accept": "image/png"}


def one(response: httpx.Response) -> dict[str, Any]:
    (result,) = response.raise_for_status().json()["results"]
    return dict(result)


def opened(response: httpx.Response) -> Image.Image:
    assert response.raise_for_status().headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(response.content), formats=["PNG"]) as image:
        image.load()
        return image


def rgb(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).astype(np.int64)


@pytest.mark.parametrize("size", [(320, 240), (32, 32), (33, 90)])
def test_every_part_is_onnx_runtimes_own(client: httpx.Client, reference: Reference, size: tuple[int, int]) -> None:
    data = picture(1, size)
    expected = reference.outputs(data)
    result = one(client.post("/v1/classify?include=predictions,embedding,heatmap,scores,timings", content=data))
    reference.check(result["predictions"], data)
    np.testing.assert_allclose(result["embedding"], expected["embedding"], atol=1e-4)
    heatmap, best = result["heatmap"], int(expected["logits"].argmax())
    assert (heatmap["index"], heatmap["label"]) == (best, reference.labels[best])
    np.testing.assert_allclose(heatmap["grid"], expected["cam"][0], atol=1e-3)
    assert heatmap["logit"] == pytest.approx(expected["logits"][best], abs=1e-3)
    assert heatmap["box"] == pytest.approx(crop_box(*size, reference.manifest.preprocessing))
    assert heatmap["image"] == {"width": size[0], "height": size[1]}
    assert result["scores"]["max_logit"] == pytest.approx(expected["logits"].max(), abs=1e-3)
    assert result["scores"]["energy"] == pytest.approx(np.logaddexp.reduce(expected["logits"]), abs=1e-3)
    calibrated = reference.manifest.calibration is not None
    assert (result["scores"]["out_of_distribution"] is not None) == calibrated
    assert all(seconds >= 0 for seconds in result["timings"].values())


def test_every_map_of_the_graph(client: httpx.Client, reference: Reference) -> None:
    expected = reference.outputs(SHIP)
    for rank, index in enumerate(np.argsort(-expected["logits"])[: len(expected["cam"])]):
        heatmap = one(client.post("/v1/explain", params={"class": reference.labels[index]}, content=SHIP))["heatmap"]
        np.testing.assert_allclose(heatmap["grid"], expected["cam"][rank], atol=1e-3)
        assert np.mean(heatmap["grid"]) + heatmap["bias"] == pytest.approx(heatmap["logit"], abs=1e-4)


def test_embeddings_in_every_form(client: httpx.Client, reference: Reference) -> None:
    images = [picture(seed) for seed in range(5)]
    expected = np.stack([reference.outputs(data)["embedding"] for data in images])
    form = [("image", data) for data in images]
    body = {"images": [base64.b64encode(data).decode() for data in images]}
    for request in ({"files": form}, {"json": body}):
        answer = client.post("/v1/embed", **request).json()
        assert answer["dimensions"] == expected.shape[1]
        np.testing.assert_allclose([result["embedding"] for result in answer["results"]], expected, atol=1e-4)
    raw = client.post("/v1/embed", files=form, headers={"accept": "application/octet-stream"})
    np.testing.assert_allclose(np.frombuffer(raw.content, "<f4").reshape(expected.shape), expected, atol=1e-4)
    npy = client.post("/v1/embed?normalize=true", files=form, headers={"accept": "application/x-npy"})
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(io.BytesIO(npy.content)), unit, atol=1e-4)


def test_json_is_answered_as_a_form_is(client: httpx.Client) -> None:
    images = [picture(1), b"no image", SHIP]
    body = {"images": [base64.b64encode(data).decode() for data in images]}
    as_json = client.post("/v1/classify", json=body).json()["results"]
    assert as_json == client.post("/v1/classify", files=[("image", data) for data in images]).json()["results"]
    assert as_json[1]["error"]["code"] == "not_an_image"


def test_the_ship_is_where_it_is(client: httpx.Client) -> None:
    """The map is high on the drawn ship, not on sky and sea."""
    heatmap = one(client.post("/v1/explain?class=ship", content=SHIP))["heatmap"]
    grid = np.array(heatmap["grid"])
    row, column = np.unravel_index(grid.argmax(), grid.shape)
    left, upper, right, lower = heatmap["box"]
    x = left + (column + 0.5) * (right - left) / heatmap["width"]
    y = upper + (row + 0.5) * (lower - upper) / heatmap["height"]
    assert 90 < x < 600
    assert 100 < y < 350
    assert grid[0].max() < grid.max() / 2, "the sky"


@pytest.mark.parametrize("size", [(640, 480), (90, 200), (1, 1), (1500, 10)])
def test_pictures_have_the_images_size_and_crop(
    client: httpx.Client, reference: Reference, size: tuple[int, int]
) -> None:
    data = picture(3, size, "PNG")
    with Image.open(io.BytesIO(data)) as image:
        plain = rgb(image)
    left, upper, right, lower = (round(edge) for edge in crop_box(*size, reference.manifest.preprocessing))
    seen = np.zeros(plain.shape[:2], bool)
    seen[upper:lower, left:right] = True
    alone = opened(client.post("/v1/explain?style=heatmap", content=data, headers=PNG))
    assert alone.size == size
    assert np.array_equal(np.asarray(alone.convert("RGBA"))[..., 3] == 255, seen)
    over = opened(client.post("/v1/explain?style=overlay&opacity=0.5", content=data, headers=PNG))
    assert over.size == size
    assert np.array_equal(rgb(over)[~seen], plain[~seen])
    assert np.abs(rgb(over)[seen] - (plain[seen] + rgb(alone)[seen]) / 2).max() <= 1


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_on_its_side_is_drawn_upright(client: httpx.Client, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(io.BytesIO(SHIP)) as image:
        back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
        stored, upright = io.BytesIO(), io.BytesIO()
        image.transpose(back[orientation]).save(stored, "PNG", exif=exif)
        image.save(upright, "PNG")
    pictures = [opened(client.post("/v1/explain?style=overlay", content=f.getvalue())) for f in (stored, upright)]
    assert pictures[0].size == pictures[1].size == (640, 480)
    assert np.abs(rgb(pictures[0]) - rgb(pictures[1])).mean() < 1


def test_abstaining(client: httpx.Client, reference: Reference) -> None:
    unsure = picture(1)
    best = max(reference.probabilities(unsure).values())
    for least, abstained in ((best - 0.01, False), (best + 0.01, True)):
        result = one(client.post("/v1/classify", params={"min_probability": least}, content=unsure))
        assert result["abstained"] is abstained
        assert bool(result["predictions"]) is not abstained


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/embed", {"accept": "text/html"}, 406, "not_acceptable"),
        ("/v1/explain?class=zebra", {}, 400, "bad_request"),
        ("/v1/explain?colormap=jet", PNG, 400, "bad_request"),
        ("/v1/classify?include=everything", {}, 400, "bad_request"),
        ("/v1/classify", {"content-type": "application/json"}, 400, "bad_request"),
    ],
)
def test_mistakes(client: httpx.Client, path: str, headers: dict[str, str], status: int, code: str) -> None:
    response = client.post(path, content=SHIP, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.slow
def test_the_maps_of_an_exported_network_are_exact(tmp_path: Path) -> None:
    """A seeded ResNet-18 with a crop; what its own bias, read from the checkpoint, and its maps add up to."""
    import torch

    from export.networks.build import build
    from export.networks.specs import get_spec

    net = build(get_spec("resnet18"), 7, seed=0).eval()
    torch.nn.init.normal_(net.fc.bias, generator=torch.Generator().manual_seed(0))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    options = ("--arch", "resnet18", "--name", "seeded", "--maps", 5, "--store", tmp_path / "store")
    exported(tmp_path / "net.pth", *options)
    bias = net.fc.bias.detach().numpy()
    data = picture(4, (500, 375))
    settings = {"RESNET_MODEL_STORE": str(tmp_path / "store"), "RESNET_PRECISION": "fp32", "RESNET_MAX_BATCH": "1"}
    with running(**settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        ranked = one(client.post("/v1/classify?top_k=7", content=data))["predictions"]
        for prediction in ranked[:5]:
            heatmap = one(client.post("/v1/explain", params={"class": prediction["index"]}, content=data))["heatmap"]
            assert (heatmap["height"], heatmap["width"]) == (7, 7)
            exact = np.mean(heatmap["grid"]) + bias[prediction["index"]]
            assert heatmap["logit"] == pytest.approx(exact, abs=1e-3)
            assert heatmap["box"] == pytest.approx([85.8, 23.4, 414.2, 351.6], abs=1)
        refused = client.post("/v1/explain", params={"class": ranked[5]["index"]}, content=data)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "no_heatmap")
        with Image.open(io.BytesIO(data)) as image:
            plain = rgb(to_rgb(image))
        over = rgb(opened(client.post("/v1/explain", content=data, headers=PNG)))
        changed = (over != plain).any(axis=2)
        assert not changed[:, :84].any()
        assert not changed[:22].any()
        assert changed[30:340, 95:405].mean() > 0.99
