"""The embedded model with a reference: images like it are near, noise is far."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model_store.store import EMBEDDED_MODELS, ModelStore
from tests.end_to_end.conftest import ROOT, picture, running, until

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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a reference; tests do not change it."""
    root = tmp_path_factory.mktemp("drift")
    with_reference(root / "store", root / "images")
    return root / "store"


@pytest.mark.slow
def test_noise_is_farther_than_the_images_of_the_reference(store: Path) -> None:
    (name,) = ModelStore(store).names()
    settings = {
        "RESNET_MODEL_STORE": str(store),
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


@pytest.mark.slow
def test_of_two_workers_the_page_shows_the_one_that_is_farther(store: Path) -> None:
    """Each has a window of its own."""
    (name,) = ModelStore(store).names()
    settings = {"RESNET_MODEL_STORE": str(store), "RESNET_DRIFT_WINDOW": "20", "RESNET_DRIFT_MIN_IMAGES": "20"}
    with running(workers=2, **settings) as server, ThreadPoolExecutor(8) as clients:

        def send(number: int) -> None:
            images = [("images", (str(i), noise(20 * number + i))) for i in range(20)]
            assert httpx.post(f"{server.url}/v1/classify", files=images, timeout=60).status_code == 200

        def told(_: int) -> dict[str, Any] | None:
            (version,) = httpx.get(f"{server.url}/v1/models/{name}", timeout=60).json()["versions"]
            drift: dict[str, Any] = version["drift"]
            return drift if drift["psi"] is not None else None

        def of_workers() -> list[dict[str, Any]]:
            """What the workers say, asked over new connections, which either may take."""
            found = {drift["embedding_distance"]: drift for drift in clients.map(told, range(16)) if drift is not None}
            return list(found.values())

        def both_saw_enough() -> bool:
            list(clients.map(send, range(8)))
            return len(of_workers()) == 2

        def on_page(metric: str) -> float:
            page = httpx.get(f"{server.url}/metrics", timeout=60).text
            return max(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(metric))

        def settled() -> bool:
            """No window moves any more, and both workers were asked."""
            before = of_workers()
            energy, distance = on_page('resnet_drift_psi{feature="energy"'), on_page("resnet_drift_embedding_distance{")
            return (
                len(before) == 2
                and energy == pytest.approx(max(drift["psi"]["energy"] for drift in before), rel=1e-3)
                and distance == pytest.approx(max(drift["embedding_distance"] for drift in before), rel=1e-3)
            )

        until(both_saw_enough, "enough images at both workers", pause_s=1)
        until(settled, "the larger distances on the page", pause_s=0.5)
        assert on_page("resnet_drift_images{") == 20
        assert on_page("resnet_drift_embedding_distance{") > 1
