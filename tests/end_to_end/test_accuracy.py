"""Accuracy over HTTP: what the checkpoint's own PyTorch code scores must come out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import httpx
import pytest

from export.images.files import read_images
from tests.cifar import AUTHORS, LabelledImages
from tests.end_to_end.conftest import Reference, Server
from tests.exports import exported

pytestmark = pytest.mark.slow

Serve = Callable[..., AbstractContextManager[Server]]

IMAGES_A_REQUEST = 50


def top1(server: Server, model: str, images: LabelledImages) -> float:
    """The share of ``images`` whose best class is their folder's name."""
    right = total = 0
    with httpx.Client(base_url=server.url, timeout=60) as client:
        source = read_images(images.path)
        while files := list(islice(source, IMAGES_A_REQUEST)):
            form = [("image", (file.path, file.data)) for file in files]
            response = client.post("/v1/classify", params={"model": model, "top_k": 1}, files=form)
            assert response.status_code == 200
            best = [result["predictions"][0]["label"] for result in response.json()["results"]]
            right += sum(label == file.label for label, file in zip(best, files, strict=True))
            total += len(files)
    assert total == images.count
    return right / total


def by_onnx_runtime(reference: Reference, images: LabelledImages) -> float:
    """What ``top1`` should be, by ONNX Runtime called directly."""
    best = ((file.label, reference.outputs(file.data)["logits"].argmax()) for file in read_images(images.path))
    right = [label == reference.labels[index] for label, index in best]
    return sum(right) / len(right)


def test_shared_checkpoints_score_what_their_own_code_scores(
    serve: Serve, shared: Path, cifar_test: LabelledImages, tmp_path: Path
) -> None:
    for name, checkpoint in AUTHORS.items():
        file = shared / "checkpoints" / checkpoint.file
        exported(file, "--arch", f"cifar_{name}", "--name", name, "--store", tmp_path)
    with serve(RESNET_MODEL_STORE=str(tmp_path)) as server:
        for name, checkpoint in AUTHORS.items():
            accuracy = top1(server, name, cifar_test)
            print(f"{name}: {accuracy:.2%} over HTTP")  # noqa: T201 - the figure is what one runs this for
            assert accuracy == pytest.approx(checkpoint.accuracy(cifar_test), abs=0.0002)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_the_embedded_model_is_as_accurate_as_its_card_says(
    serve: Serve, reference: Reference, cifar_test: LabelledImages, precision: str
) -> None:
    """fp32 to the image or two; what auto takes within the gate, whose figures are of one provider of several."""
    manifest = reference.manifest
    card = manifest.variants[0].parity.accuracy
    assert card is not None
    expected = card.exported if cifar_test.whole else by_onnx_runtime(reference, cifar_test)
    assert expected == pytest.approx(card.exported, abs=0.02)  # a part of the images is like them all
    with serve(RESNET_PRECISION=precision) as server:
        served = httpx.get(f"{server.url}/v1/models").json()["models"][0]
        accuracy = top1(server, manifest.name, cifar_test)
    what = f"{served['precision']} on {served['provider']}"
    print(f"{manifest.name}: {accuracy:.2%} over HTTP, {what}")  # noqa: T201 - the figure is what one runs this for
    if served["precision"] == "fp32":
        assert accuracy == pytest.approx(expected, abs=0.0002)
    else:
        variant = manifest.variant(served["precision"])
        assert variant.gated
        assert variant.gate.accuracy is not None
        lost = card.exported - variant.gate.accuracy
        assert expected - accuracy == pytest.approx(lost, abs=0.003)
        assert accuracy >= expected - variant.gate.max_accuracy_drop
    assert accuracy >= 0.88
