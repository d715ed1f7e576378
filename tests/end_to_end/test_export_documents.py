"""Every `python -m export` command of the pages on exporting is run, on files like those that it names."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.images.files import read_images
from export.images.image_sets import seeded_images
from export.networks.build import build
from export.networks.specs import SPECS
from export.variants.gate import cpu_logits
from model_store.manifest import MANIFEST_FILE
from model_store.store import EMBEDDED_MODELS, ModelStore
from tests.end_to_end.test_documents import commands
from tests.export.http_server import (
    WeightsServer,
    publish_repository,
    publish_torchvision,
    serving,
    without_proxies,
)
from tests.export.origin_files import documented_inputs
from tests.exports import export
from tests.openvino import need_bf16

pytestmark = pytest.mark.slow

PROGRAM = ".venv/bin/python -m export "
# Run elsewhere: the README's export in test_documents.py, the study in tests/export/study.
ELSEWHERE = ("CHECKPOINT", "checkpoint.pth", "study")
OF_REMOTE_STORES = "s3://"  # run in test_remote_store.py


def documented() -> list[str]:
    words = [line.removeprefix(PROGRAM) for line in commands() if line.startswith(PROGRAM)]
    return [line for line in words if not line.startswith(ELSEWHERE) and OF_REMOTE_STORES not in line]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for every name that the commands use."""
    folder = documented_inputs(tmp_path_factory.mktemp("documents"))
    images = sure_images()
    for name in ("train.zip", "test.zip", "photos.zip"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path, data in images.items():
                archive.writestr(path, data)
    (folder / "images").mkdir(exist_ok=True)
    for path, data in list(images.items())[:40]:
        (folder / "images" / path.replace("/", "-")).write_bytes(data)
    save_large(folder / "large-photos", folder / "test.zip")
    save_doubtful(folder / "held-out.zip")
    return folder


def sure_images() -> dict[str, bytes]:
    """PNG files by path, in folders of the embedded model's answers. It is sure of them: int8 cannot change them."""
    stored = ModelStore(EMBEDDED_MODELS).resolve("cifar10-resnet16")
    images = np.stack(list(seeded_images(stored.manifest.preprocessing, count=400).read()))
    logits = cpu_logits(stored.path(stored.variant("fp32")))(images)
    second, first = np.sort(logits, axis=1)[:, -2:].T
    found = {}
    for i in np.flatnonzero(first - second > 2):
        file = io.BytesIO()
        Image.fromarray(images[i]).save(file, "PNG")
        found[f"{stored.labels()[logits[i].argmax()]}/{i}.png"] = file.getvalue()
    return found


def save_doubtful(path: Path) -> None:
    """Images with labels by chance, as likely as the embedded model says at temperature 2: some answers are wrong."""
    stored = ModelStore(EMBEDDED_MODELS).resolve("cifar10-resnet16")
    images = np.stack(list(seeded_images(stored.manifest.preprocessing, count=200).read()))
    logits = cpu_logits(stored.path(stored.variant("fp32")))(images)
    drawn = (logits / 2 + np.random.default_rng(0).gumbel(size=logits.shape)).argmax(axis=1)
    with zipfile.ZipFile(path, "w") as archive:
        for i, label in enumerate(drawn):
            file = io.BytesIO()
            Image.fromarray(images[i]).save(file, "PNG")
            archive.writestr(f"{stored.labels()[label]}/{i}.png", file.getvalue())


def save_large(folder: Path, source: Path) -> None:
    """The images of ``source`` as large JPEGs, in three sizes as there must be many."""
    folder.mkdir()
    for i, file in enumerate(read_images(source)):
        for side in (256, 288, 320):
            large = file.rgb().resize((side, side), Image.Resampling.BICUBIC)
            large.save(folder / f"{i}-{side}.jpg", quality=95)


@pytest.fixture(scope="module")
def internet(place: Path) -> Iterator[WeightsServer]:
    """The servers of torchvision and Hugging Face, on this machine and with seeded weights."""
    with serving() as server:
        files = {path.name: path.read_bytes() for path in (place / "huggingface-folder").iterdir()}
        publish_repository(server, "microsoft/resnet-50", files)
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The embedded model in two versions, the second its canary."""
    store, name = tmp_path / "store", "cifar10-resnet16"
    embedded = ModelStore(EMBEDDED_MODELS).resolve(name).folder
    for version in ("1", "2"):
        folder = shutil.copytree(embedded, store / name / version)
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
        (folder / MANIFEST_FILE).write_text(json.dumps(manifest | {"version": version}))
    ModelStore(store).set_alias(name, "canary", "2")
    return store


def test_commands_are_found() -> None:
    assert len(documented()) >= 25


@pytest.mark.parametrize("command", documented())
def test_a_command_does_what_it_says(
    command: str, place: Path, store: Path, internet: WeightsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "bf16" in command or command.startswith("draft"):  # draft compares all variants, the embedded model's bf16 too
        need_bf16()
    options: list[str] = []
    table = {}
    if "torchvision/" in command:
        weights = build(SPECS["resnet50"], 1000, seed=0).state_dict()
        table = {"resnet50": publish_torchvision(internet, weights, "resnet50")}
    if "--pretrained" in command:
        options = ["--mirror", internet.url, "--cache", str(place / "cache")]
    options += ["--store", str(store)]
    without_proxies(monkeypatch)
    words = [*shlex.split(command.replace("MODEL", "cifar10-resnet16")), *options]
    done = export(*words, folder=place, weights=table)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
