"""From a stored model to a calibrated version, or to a refusal that leaves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from export.calibration import calibrate as module
from export.calibration.calibrate import FEWEST, CalibrateRequest, measure, publish
from export.calibration.detection import Scores, reached
from export.calibration.temperature import CalibrationError, reliability
from export.images.files import ImagesError
from export.images.image_sets import real_images
from export.variants.candidates import Rules
from export.variants.gate import Logits, cpu_logits, logits_of
from export.variants.gate_providers import ProviderMissing
from export.variants.variant import VariantRequest, make_variants
from model_store.store import EMBEDDED_MODELS, ModelStore, StoreError
from model_store.stored_model import StoredModel
from tests.export import colours, uncertain
from tests.export.variants.conftest import LOOSE

TRUE_TEMPERATURE = 2.5


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uncertain.write(tmp_path_factory.mktemp("images") / "test", 400, TRUE_TEMPERATURE)


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    return colours.publish(tmp_path / "store")


@pytest.fixture
def request_(stored: StoredModel, tmp_path: Path, images: Path) -> CalibrateRequest:
    return CalibrateRequest("colours", tmp_path / "store", images)


def test_the_temperature_of_the_labels_is_found(
    stored: StoredModel, request_: CalibrateRequest, console: Console
) -> None:
    found = measure(stored, request_, console)
    calibration = found.calibration
    assert calibration.temperature == pytest.approx(TRUE_TEMPERATURE, rel=0.3)
    assert (calibration.images, calibration.held_out, calibration.image_source) == (200, 200, "test")
    assert calibration.error_after < calibration.error_before / 2
    assert found.likelihood[1] < found.likelihood[0]
    assert (found.before.error, found.after.error) == (calibration.error_before, calibration.error_after)
    assert found.before.counts.sum() == found.after.counts.sum() == 200
    assert found.outliers is None
    assert [variant.precision for variant in found.variants] == ["fp32"]
    assert found.variants[0].error_after == calibration.error_after
    assert found.variants[0].accuracy == found.accuracy


def test_a_half_that_was_not_fitted_tells_the_error(
    stored: StoredModel, request_: CalibrateRequest, console: Console
) -> None:
    """All figures again, from the same images by another way."""
    found = measure(stored, request_, console)
    whole = real_images(request_.images, stored.manifest.preprocessing, colours.LABELS)
    logits = logits_of(whole.read(), cpu_logits(stored.path(stored.variant("fp32"))))
    first, second = module.Source.open(request_.images, stored.manifest.preprocessing, colours.LABELS).halves()
    files = module.Source.open(request_.images, stored.manifest.preprocessing, colours.LABELS).files
    fitted, held_out = ([files.index(file) for file in half.files] for half in (first, second))
    targets = np.array(whole.targets)
    calibration = found.calibration
    for temperature, error in ((1.0, calibration.error_before), (calibration.temperature, calibration.error_after)):
        again = reliability(logits[held_out], targets[held_out], temperature)
        assert again.error == pytest.approx(error, abs=1e-6)
    scores = Scores.of(logits[fitted])
    assert 0.95 <= reached(scores.energy + 1e-6, calibration.energy) < 0.96
    assert 0.95 <= reached(scores.max_logit + 1e-6, calibration.max_logit) < 0.96


def test_it_is_the_same_every_time(stored: StoredModel, request_: CalibrateRequest, console: Console) -> None:
    assert measure(stored, request_, console).calibration == measure(stored, request_, console).calibration


def test_the_next_version_has_it(stored: StoredModel, request_: CalibrateRequest, console: Console) -> None:
    store = ModelStore(request_.store)
    findings = measure(stored, request_, console)
    published = publish(store, stored, findings)
    assert store.versions("colours") == ["1", "2"]
    loaded = store.resolve("colours")
    assert loaded == published
    loaded.verify()
    calibration = loaded.manifest.calibration
    assert calibration is not None
    assert calibration.report is not None
    assert calibration.report in loaded.manifest.files
    assert calibration.model_copy(update={"report": None}) == findings.calibration
    same = {"version", "created", "calibration"}
    assert loaded.manifest.model_dump(exclude=same) == stored.manifest.model_dump(exclude=same)
    assert sorted(path.name for path in loaded.folder.iterdir()) == [
        "README.md",
        "labels.txt",
        "manifest.json",
        "model.fp32.onnx",
        "report.calibration.html",
    ]
    page = loaded.path(calibration.report).read_text()
    assert "<h1>colours version 1: calibration</h1>" in page
    card = (loaded.folder / "README.md").read_text()
    assert f"logits / {calibration.temperature:.4f}" in card
    assert "By stretching." in card
    assert [path.name for path in request_.store.iterdir()] == ["colours"]


def test_a_changed_report_is_found(stored: StoredModel, request_: CalibrateRequest, console: Console) -> None:
    published = publish(ModelStore(request_.store), stored, measure(stored, request_, console))
    assert published.manifest.calibration
    assert published.manifest.calibration.report
    path = published.path(published.manifest.calibration.report)
    path.write_text(path.read_text().replace("before", "behind"))
    with pytest.raises(StoreError, match=r"report\.calibration\.html: its SHA-256"):
        published.verify()


def test_later_versions_keep_it_and_a_new_one_takes_its_place(
    stored: StoredModel, request_: CalibrateRequest, tmp_path: Path, console: Console
) -> None:
    store = ModelStore(request_.store)
    first = publish(store, stored, measure(stored, request_, console))
    train = colours.write(tmp_path / "train", colours.CALIBRATION, labels=False)
    test = colours.write(tmp_path / "test")
    request = VariantRequest("colours", request_.store, calibrate=train, validate=test, rules=Rules(LOOSE))
    quantized = make_variants(replace(request, method="minmax"), console)
    quantized.verify()
    assert quantized.manifest.calibration == first.manifest.calibration
    assert (quantized.folder / "report.calibration.html").is_file()

    again = measure(quantized, replace(request_, coverage=0.5), console)
    int8 = again.variants[1]
    assert (int8.precision, int8.provider) == ("int8", "cpu")
    assert int8.error_after < int8.error_before
    assert int8.energy_reached == pytest.approx(0.5, abs=0.1)
    third = publish(store, quantized, again)
    third.verify()
    assert third.manifest.calibration
    assert third.manifest.calibration.coverage == 0.5
    assert third.manifest.variant("int8") == quantized.manifest.variant("int8")


def test_outliers_are_scored(stored: StoredModel, request_: CalibrateRequest, tmp_path: Path, console: Console) -> None:
    grey = tmp_path / "grey"
    grey.mkdir()
    for i in range(5):
        Image.new("RGB", (16, 16), (120 + i, 120, 120)).save(grey / f"{i}.png")
    found = measure(stored, replace(request_, outliers=grey), console)
    assert found.outliers is not None
    assert found.outliers.energy.shape == found.outliers.max_logit.shape == (5,)
    assert found.outlier_source == "grey"
    assert found.calibration == measure(stored, request_, console).calibration


def test_a_variant_that_cannot_be_run_here_is_a_note(
    images: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = ModelStore(EMBEDDED_MODELS).resolve("cifar10-resnet16")
    opened: list[tuple[str, str]] = []

    def spy(path: Path, provider: str, precision: str) -> Logits:
        if precision == "bf16":
            raise ProviderMissing("bf16: not here")
        opened.append((provider, precision))
        return lambda pixels: np.zeros((len(pixels), 10), np.float32)

    monkeypatch.setattr(module, "open_logits", spy)
    notes: list[str] = []
    runs = module._open(embedded, notes)
    assert opened == [("cpu", "fp32"), ("cpu", "int8")]
    assert [run.precision for run in runs] == ["fp32", "int8"]
    assert notes == ["bf16 is not measured: bf16: not here"]


def test_a_model_that_is_calibrated_already_keeps_temperature_1(
    stored: StoredModel, request_: CalibrateRequest, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "fit_temperature", lambda logits, targets: 0.2)
    found = measure(stored, request_, console)
    assert found.calibration.temperature == 1
    assert found.calibration.error_after == found.calibration.error_before
    assert found.after is found.before
    assert "temperature 0.200 does not lower the error of the images set apart" in found.notes[0]


def test_the_reader_is_cautioned(
    stored: StoredModel, request_: CalibrateRequest, tmp_path: Path, console: Console
) -> None:
    assert "much of the error that is left is chance" in " ".join(measure(stored, request_, console).notes)
    two = tmp_path / "two"
    for label in ("ant", "bee"):
        (two / label).mkdir(parents=True)
        for i, path in enumerate(sorted(request_.images.rglob("*.png"))[:FEWEST]):
            (two / label / f"{i}.png").write_bytes(path.read_bytes())
    notes = " ".join(measure(stored, replace(request_, images=two), console).notes)
    assert "5 of 7 classes have no images" in notes


def test_images_that_it_was_trained_on_are_suspected(
    stored: StoredModel, request_: CalibrateRequest, console: Console
) -> None:
    parity = stored.manifest.variants[0].parity
    assert parity
    for exported, suspected in ((0.2, True), (0.99, False)):
        accuracy = {"pytorch": exported, "exported": exported, "by_class": {}}
        measured = type(parity).model_validate(parity.model_dump() | {"accuracy": accuracy})
        variant = stored.manifest.variants[0].model_copy(update={"parity": measured})
        model = replace(stored, manifest=stored.manifest.model_copy(update={"variants": [variant]}))
        notes = " ".join(measure(model, request_, console).notes)
        assert ("if it was trained on them" in notes) is suspected


# Refusals


def test_no_labels(stored: StoredModel, request_: CalibrateRequest, tmp_path: Path, console: Console) -> None:
    top = colours.write(tmp_path / "top", labels=False)
    with pytest.raises(CalibrationError, match="needs a folder a label: not every image is in a class folder"):
        measure(stored, replace(request_, images=top), console)
    other = uncertain.write(tmp_path / "other", 10)
    (other / "yak").mkdir()
    next(other.rglob("*.png")).rename(other / "yak" / "1.png")
    with pytest.raises(CalibrationError, match="the folder 'yak' is not one of the labels"):
        measure(stored, replace(request_, images=other), console)


def test_too_few_images(stored: StoredModel, request_: CalibrateRequest, tmp_path: Path, console: Console) -> None:
    few = uncertain.write(tmp_path / "few", FEWEST - 1)
    with pytest.raises(CalibrationError, match=f"few: {FEWEST - 1} images; calibration needs at least {FEWEST}"):
        measure(stored, replace(request_, images=few), console)


def test_a_temperature_at_the_bound(
    stored: StoredModel, request_: CalibrateRequest, tmp_path: Path, console: Console
) -> None:
    right = uncertain.write(tmp_path / "right", 120, temperature=1e-6)
    with pytest.raises(CalibrationError, match="lowest bound"):
        measure(stored, replace(request_, images=right), console)


def test_no_images(stored: StoredModel, request_: CalibrateRequest, tmp_path: Path, console: Console) -> None:
    with pytest.raises(ImagesError, match="neither a folder nor a zip"):
        measure(stored, replace(request_, images=tmp_path / "absent"), console)
    with pytest.raises(ImagesError, match="neither a folder nor a zip"):
        measure(stored, replace(request_, outliers=tmp_path / "absent"), console)


def test_logits_that_are_not_finite(
    stored: StoredModel, request_: CalibrateRequest, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = np.full((1, 7), np.nan, np.float32)
    monkeypatch.setattr(module, "open_logits", lambda *_: lambda pixels: np.repeat(broken, len(pixels), axis=0))
    with pytest.raises(CalibrationError, match="logits of the fp32 variant are not finite"):
        measure(stored, request_, console)
