"""From a stored model to a version with smaller decoding, or to a refusal that leaves nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from export.draft import FEWEST, DraftRequest, Findings, measure, publish
from export.images.files import read_images
from export.variants.gate import GateError, Logits, cpu_logits
from export.variants.gate_providers import ProviderMissing
from model_store.manifest import ManifestError, load_manifest
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.stored_model import StoredModel
from model_store.transforms import to_rgb, to_tensor
from tests.export import colours

LARGE = 110


def write_photos(folder: Path, count: int, size: tuple[int, int], kind: str = "jpg") -> Path:
    """Blobs of colour in many sizes, as no two look the same to the network."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(size[0])
    for i in range(count):
        cells = 2 + i % 5
        coarse = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{size[0]}-{i:03}.{kind}")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``LARGE`` JPEGs that are decoded smaller at margin 2, and others that are not."""
    folder = tmp_path_factory.mktemp("images") / "photos"
    write_photos(folder, LARGE, (100, 70))
    write_photos(folder, 5, (60, 60))
    return write_photos(folder, 5, (90, 90), "png")


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    return colours.publish(tmp_path / "store")


@pytest.fixture
def request_(stored: StoredModel, tmp_path: Path, photos: Path) -> DraftRequest:
    return DraftRequest("colours", tmp_path / "store", photos, min_agreement=0.9)


def found(stored: StoredModel, request: DraftRequest, console: Console) -> Findings:
    return measure(stored, request, console)


def test_only_images_that_are_decoded_smaller_count(
    stored: StoredModel, request_: DraftRequest, photos: Path, console: Console
) -> None:
    gate = found(stored, request_, console).gates["fp32"]
    assert (gate.images, gate.image_source) == (LARGE, "photos")

    spec, run = stored.manifest.preprocessing, cpu_logits(stored.path(stored.variant("fp32")))
    agreeing, largest = 0, 0.0
    for file in read_images(photos):
        if not file.path.startswith("100-"):
            continue
        with Image.open(photos / file.path) as image:
            image.draft(None, (32, 32))
            assert image.size == (50, 35)
            small = to_tensor(to_rgb(image), spec)
        whole = to_tensor(file.rgb(), spec)
        expected, other = run(whole[None])[0], run(small[None])[0]
        agreeing += expected.argmax() == other.argmax()
        largest = max(largest, float(np.abs(expected - other).max()))
    assert gate.top1_agreement == pytest.approx(agreeing / LARGE)
    assert gate.max_absolute_error == pytest.approx(largest, abs=1e-4)
    assert largest > 0


def test_what_passes_is_the_next_version(
    stored: StoredModel, request_: DraftRequest, photos: Path, console: Console
) -> None:
    store = ModelStore(request_.store)
    findings = found(stored, request_, console)
    published = publish(store, stored, findings, request_.margin)
    assert store.versions("colours") == ["1", "2"]
    loaded = store.resolve("colours")
    loaded.verify()
    scaling = loaded.manifest.preprocessing.jpeg_scaling
    assert scaling is not None
    assert (scaling.margin, scaling.gate) == (2, findings.gates["fp32"])
    same = {"version", "created", "preprocessing"}
    assert published.manifest.model_dump(exclude=same) == stored.manifest.model_dump(exclude=same)
    assert stored.manifest.preprocessing.jpeg_scaling is None
    card = (published.folder / "README.md").read_text()
    assert "By stretching." in card
    assert f"On {LARGE} images of photos the top class stayed the same on" in card
    # Calibration and verification see what serving sees.
    whole, small = (spec.manifest.preprocessing for spec in (stored, loaded))
    file = next(read_images(photos, ["100-003.jpg"]))
    assert not np.array_equal(file.tensor(whole), file.tensor(small))


def test_a_model_whose_answers_change_is_refused(stored: StoredModel, request_: DraftRequest, console: Console) -> None:
    findings = found(stored, replace(request_, min_agreement=1.0, margin=1.0), console)
    assert not findings.worst.passed
    with pytest.raises(GateError, match=r"fp32 gives the same top class on 9\d\.\d\d% .*limit 100\.00%"):
        publish(ModelStore(request_.store), stored, findings, 1.0)
    assert ModelStore(request_.store).versions("colours") == ["1"]


def test_the_worst_variant_decides(stored: StoredModel, request_: DraftRequest, console: Console) -> None:
    findings = found(stored, request_, console)
    good = findings.gates["fp32"]
    bad = good.model_copy(update={"top1_agreement": 0.5, "passed": False})
    both = replace(findings, gates={"fp32": good, "int8": bad})
    with pytest.raises(GateError, match="int8 gives the same top class on 50"):
        publish(ModelStore(request_.store), stored, both, 2.0)


def test_too_few_large_images_are_refused(
    stored: StoredModel, request_: DraftRequest, tmp_path: Path, console: Console
) -> None:
    few = write_photos(tmp_path / "few", FEWEST - 1, (100, 70))
    with pytest.raises(
        GateError, match=f"{FEWEST - 1} of {FEWEST - 1} images are JPEGs large enough .* at margin 2; 100"
    ):
        found(stored, replace(request_, images=few), console)
    small = write_photos(tmp_path / "small", 3, (60, 60))
    with pytest.raises(GateError, match="0 of 3 images"):
        found(stored, replace(request_, images=small), console)


def test_a_model_that_is_scaled_already_is_compared_with_whole_images(
    stored: StoredModel, request_: DraftRequest, console: Console
) -> None:
    first = found(stored, request_, console)
    again = publish(ModelStore(request_.store), stored, first, 2.0)
    assert found(again, request_, console).gates == first.gates


def test_a_manifest_with_scaling_that_no_gate_passed_is_refused(
    stored: StoredModel, request_: DraftRequest, console: Console
) -> None:
    published = publish(ModelStore(request_.store), stored, found(stored, request_, console), 2.0)
    path = published.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["preprocessing"]["jpeg_scaling"]["gate"]["passed"] is True
    manifest["preprocessing"]["jpeg_scaling"]["gate"]["passed"] = False
    path.write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match="gate that was passed"):
        load_manifest(path)


def test_every_variant_is_compared_where_its_gate_was_measured(
    photos: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 is the fp32 file, so that what it is run by makes all the difference."""
    opened: list[tuple[str, str]] = []

    def spy(path: Path, provider: str, precision: str) -> Logits:
        opened.append((provider, precision))
        return lambda pixels: np.zeros((len(pixels), 10), np.float32)

    monkeypatch.setattr("export.draft.open_logits", spy)
    embedded = ModelStore(EMBEDDED_MODELS).resolve("cifar10-resnet16")
    gates = found(embedded, DraftRequest("cifar10-resnet16", EMBEDDED_MODELS, photos, margin=1.0), console).gates
    assert sorted(opened) == [("cpu", "fp32"), ("cpu", "int8"), ("openvino", "bf16")]
    assert {precision: gate.provider for precision, gate in gates.items()} == {p: where for where, p in opened}


def test_a_variant_that_cannot_run_here_is_named_with_the_way_out(
    photos: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(path: Path, provider: str, precision: str) -> Logits:
        raise ProviderMissing(f"{provider}: it is not installed")

    monkeypatch.setattr("export.draft.open_logits", missing)
    embedded = ModelStore(EMBEDDED_MODELS).resolve("cifar10-resnet16")
    with pytest.raises(GateError, match=r"^cpu: it is not installed; every variant .* fp32 too, .* can serve it$"):
        found(embedded, DraftRequest("cifar10-resnet16", EMBEDDED_MODELS, photos, margin=1.0), console)
