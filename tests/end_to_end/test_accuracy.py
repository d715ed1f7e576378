"""Accuracy over HTTP, on all 10,000 images: what the checkpoint's own PyTorch code scores must come out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import httpx
import pytest

from export.images.files import read_images
from model_store.store import EMBEDDED_MODELS, ModelStore
from tests.end_to_end.conftest import ROOT, Server

pytestmark = pytest.mark.slow

Serve = Callable[..., AbstractContextManager[Server]]

IMAGES_A_REQUEST = 50


def top1(server: Server, model: str, images: Path) -> float:
    """The share of ``images`` whose best class is their folder's name."""
    right = total = 0
    with httpx.Client(base_url=server.url, timeout=60) as client:
        source = read_images(images)
        while files := list(islice(source, IMAGES_A_REQUEST)):
            form = [("image", (file.path, file.data)) for file in files]
            response = client.post("/v1/classify", params={"model": model, "top_k": 1}, files=form)
            assert response.status_code == 200
            best = [result["predictions"][0]["label"] for result in response.json()["results"]]
            right += sum(label == file.label for label, file in zip(best, files, strict=True))
            total += len(files)
    assert total == 10_000
    return right / total


def test_shared_checkpoints_score_what_their_own_code_scores(serve: Serve, shared: Path, tmp_path: Path) -> None:
    checkpoints = {
        "resnet20": ("resnet20-12fca82f.th", 0.8103),
        "resnet32": ("resnet32-d509ac18.th", 0.8256),
        "resnet56": ("resnet56-4bfd9763.th", 0.8320),
    }
    for name, (file, _) in checkpoints.items():
        command = ["-m", "export", str(shared / "checkpoints" / file), "--arch", f"cifar_{name}", "--name", name]
        subprocess.run([sys.executable, *command, "--store", str(tmp_path)], cwd=ROOT, check=True)
    with serve(RESNET_MODEL_STORE=str(tmp_path)) as server:
        for name, (_, expected) in checkpoints.items():
            accuracy = top1(server, name, shared / "data" / "cifar10-test.zip")
            print(f"{name}: {accuracy:.2%} over HTTP")  # noqa: T201 - the figure is what one runs this for
            assert accuracy == pytest.approx(expected, abs=0.0002)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_the_embedded_model_is_as_accurate_as_its_card_says(serve: Serve, shared: Path, precision: str) -> None:
    """fp32 to the image or two; what auto takes within the gate, whose figures are of one provider of several."""
    store = ModelStore(EMBEDDED_MODELS)
    manifest = store.resolve(store.names()[0]).manifest
    fp32 = manifest.variants[0].parity.accuracy
    assert fp32 is not None
    with serve(RESNET_PRECISION=precision) as server:
        served = httpx.get(f"{server.url}/v1/models").json()["models"][0]
        accuracy = top1(server, manifest.name, shared / "data" / "cifar10-test.zip")
    what = f"{served['precision']} on {served['provider']}"
    print(f"{manifest.name}: {accuracy:.2%} over HTTP, {what}")  # noqa: T201 - the figure is what one runs this for
    if served["precision"] == "fp32":
        assert accuracy == pytest.approx(fp32.exported, abs=0.0002)
    else:
        variant = manifest.variant(served["precision"])
        assert variant.gated
        assert accuracy == pytest.approx(variant.gate.accuracy, abs=0.003)
        assert accuracy >= fp32.exported - variant.gate.max_accuracy_drop
    assert accuracy >= 0.88
