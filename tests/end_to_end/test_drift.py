"""The embedded model with a reference: images like it are near, noise is far."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model_store.store import EMBEDDED_MODELS, ModelStore
from tests.end_to_end.conftest import ROOT, picture, running

IMAGES = 200
LIMIT_S = 60


def with_reference(store: Path, images: Path) -> str:
    """A copy of the embedded model in ``store``, whose newest version has a reference of smooth pictures; its name."""
    name = ModelStore(EMBEDDED_MODELS).names()[0]
    shutil.copytree(EMBEDDED_MODELS / name, store / name)
    images.mkdir()
    for seed in range(IMAGES):
        (images / f"{seed}.jpg").write_bytes(picture(seed))
    command = [sys.executable, "-m", "export", "reference", name, "--images", str(images), "--store", str(store)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return name


def noise(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shown(client: httpx.Client, name: str, images: list[bytes]) -> dict[str, Any]:
    """The distances of a service whose window is as large as ``images``, once it has been shown them."""
    for start in range(0, len(images), 20):
        files = [("images", (f"{i}", data)) for i, data in enumerate(images[start : start + 20])]
        assert client.post("/v1/classify", files=files).status_code == 200
    # Of the last ones: the first may have been counted with them a moment ago.
    limit, before = time.monotonic() + LIMIT_S, None
    while time.monotonic() < limit:
        (version,) = client.get(f"/v1/models/{name}").json()["versions"]
        drift: dict[str, Any] = version["drift"]
        if drift["psi"] is not None and drift == before:
            return drift
        before = drift
        time.sleep(1.5)
    pytest.fail("the images were not counted")


@pytest.mark.slow
def test_noise_is_farther_than_the_images_of_the_reference(tmp_path: Path) -> None:
    name = with_reference(tmp_path / "store", tmp_path / "images")
    settings = {
        "RESNET_MODEL_STORE": str(tmp_path / "store"),
        "RESNET_DRIFT_WINDOW": str(IMAGES),
        "RESNET_DRIFT_MIN_IMAGES": str(IMAGES),
    }
    with running(**settings) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        same = shown(client, name, [picture(seed) for seed in range(IMAGES)])
        assert same["reference_images"] == IMAGES
        assert same["reference_source"] == "images"
        assert max(same["psi"].values()) < 0.1
        assert same["embedding_distance"] < 0.25
        other = shown(client, name, [noise(seed) for seed in range(2 * IMAGES)])
        assert other["psi"]["energy"] > 0.25
        assert other["embedding_distance"] > 3 * same["embedding_distance"]
        page = client.get("/metrics").text
        (line,) = [line for line in page.splitlines() if line.startswith('resnet_drift_psi{feature="energy"')]
        assert float(line.rpartition(" ")[2]) > 0.25
