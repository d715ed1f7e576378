"""From a stored fp32 model to a version with one more variant, or to a refusal that leaves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
import pytest
from rich.console import Console

from export.errors import ExportError
from export.images.files import ImagesError
from export.variants import candidates
from export.variants import variant as module
from export.variants.candidates import Rules
from export.variants.gate import GateError, Logits, Thresholds, cpu_logits
from export.variants.gate_providers import ProviderMissing
from export.variants.variant import VariantRequest, make_variants
from model_store.manifest import Manifest
from model_store.store import ModelStore, StoreError
from model_store.stored_model import StoredModel
from tests.export import colours

from .conftest import contents


def test_what_passes_becomes_the_next_version(request_: VariantRequest, console: Console) -> None:
    before = contents(request_.store)
    stored = make_variants(request_, console)
    found = ModelStore(request_.store).resolve("colours")
    assert found == stored
    found.verify()
    assert found.manifest.version == "2"
    assert {path: data for path, data in contents(request_.store).items() if path in before} == before
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "README.md",
        "labels.txt",
        "manifest.json",
        "model.fp32.onnx",
        "model.int8.onnx",
        "report.int8.html",
    ]
    assert [path.name for path in request_.store.iterdir()] == ["colours"]


def test_the_manifest_says_how_and_how_well(request_: VariantRequest, console: Console) -> None:
    before = ModelStore(request_.store).resolve("colours").manifest
    manifest = make_variants(request_, console).manifest
    assert manifest.variant("fp32") == before.variant("fp32")
    variant = manifest.variant("int8")
    assert variant
    assert variant.gated
    assert variant.report
    assert variant.quantization
    assert variant.quantization.model_dump() == {
        "method": "minmax",
        "calibration_images": 24,
        "calibration_source": "train",
        "float_nodes": [],
    }
    gate = variant.gate
    assert gate
    assert (gate.rule, gate.passed, gate.images, gate.image_source) == ("accuracy", True, 60, "test")
    assert gate.baseline_accuracy == 1
    assert gate.accuracy == gate.top1_agreement >= 0.9
    assert (gate.max_accuracy_drop, gate.min_agreement) == (0.1, 0.9)
    assert set(gate.by_class) == set(colours.LABELS)
    changed = {"version", "created", "variants"}
    assert manifest.model_dump(exclude=changed) == before.model_dump(exclude=changed)
    assert manifest.created > before.created


def test_the_file_is_the_one_that_was_judged(request_: VariantRequest, console: Console) -> None:
    stored = make_variants(request_, console)
    variant = stored.manifest.variant("int8")
    assert variant
    assert variant.gate
    session = ort.InferenceSession(stored.path(variant), providers=["CPUExecutionProvider"])
    pixels = np.stack(list(colours.IMAGES.read()))
    answers = session.run(["logits"], {"image": pixels})[0].argmax(axis=1)
    assert (answers == colours.labelled().targets).mean() == pytest.approx(variant.gate.accuracy)


def test_the_card_shows_the_variants_and_keeps_what_was_known(request_: VariantRequest, console: Console) -> None:
    card = (make_variants(request_, console).folder / "README.md").read_text()
    assert card.startswith("# colours, version 2\n")
    assert "## Other precisions" in card
    assert "passed, by accuracy" in card
    assert "minmax, 24 images from train" in card
    assert "By stretching." in card
    assert "Recipe: unknown" not in card


def test_a_model_without_a_card_gets_one(request_: VariantRequest, console: Console) -> None:
    (request_.store / "colours" / "1" / "README.md").unlink()
    assert "## Training" in (make_variants(request_, console).folder / "README.md").read_text()


def test_a_second_precision_joins_the_first(request_: VariantRequest, console: Console) -> None:
    first = make_variants(request_, console)
    second = make_variants(replace(request_, precisions=("fp16",), rules=Rules(Thresholds())), console)
    second.verify()
    assert [variant.precision for variant in second.manifest.variants] == ["fp32", "int8", "fp16"]
    assert second.manifest.variant("int8") == first.manifest.variant("int8")
    assert (second.folder / "report.int8.html").read_bytes() == (first.folder / "report.int8.html").read_bytes()
    assert [variant.gated for variant in second.manifest.variants] == [True] * 3


def test_the_same_precision_again_takes_the_place_of_the_old(request_: VariantRequest, console: Console) -> None:
    make_variants(request_, console)
    again = make_variants(replace(request_, calibration_images=5), console)
    assert [variant.precision for variant in again.manifest.variants] == ["fp32", "int8"]
    how = again.manifest.variants[1].quantization
    assert how
    assert how.calibration_images == 5
    again.verify()


def test_a_version_may_be_named(request_: VariantRequest, console: Console) -> None:
    make_variants(request_, console)
    third = make_variants(replace(request_, model="colours@1", precisions=("fp16",)), console)
    assert third.manifest.version == "3"
    assert [variant.precision for variant in third.manifest.variants] == ["fp32", "fp16"]


# The gate's provider


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_the_gate_is_where_one_wants_it(
    request_: VariantRequest, console: Console, monkeypatch: pytest.MonkeyPatch, precision: Literal["int8", "fp16"]
) -> None:
    """By a fake: no GPU is here."""
    opened: list[tuple[str, str]] = []

    def fake(model: bytes, *where: str) -> Logits:
        opened.append(where)
        return cpu_logits(model)

    monkeypatch.setattr(module, "check_provider", lambda *_: None)
    monkeypatch.setattr(candidates, "open_logits", fake)
    variant = make_variants(replace(request_, precisions=(precision,), provider="cuda"), console).manifest.variants[1]
    assert opened == [("cuda", precision)]
    assert variant.gate
    assert variant.gate.provider == "cuda"


def test_a_provider_that_is_not_here_is_told_before_the_work(
    request_: VariantRequest, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "calibrate", lambda *_: pytest.fail("the slow part began"))
    with pytest.raises(ProviderMissing, match="no CUDA provider"):
        make_variants(replace(request_, provider="cuda"), console)


# Refusals


@pytest.mark.usefixtures("ruined")
def test_a_deliberately_ruined_variant_is_refused(request_: VariantRequest, console: Console, tmp_path: Path) -> None:
    """Nothing is published, and the report names the worst layers and images."""
    before = contents(request_.store)
    request = replace(request_, rules=Rules(Thresholds()))
    with pytest.raises(GateError, match=r"int8 is refused: its accuracy, .* below fp32's 100\.00% \(limit 0\.5\)") as e:
        make_variants(request, console)
    assert "report: colours-int8-report.html" in str(e.value)
    assert contents(request_.store) == before
    assert [path.name for path in request_.store.iterdir()] == ["colours"]
    page = (tmp_path / "colours-int8-report.html").read_text()
    assert '<span class="outcome refused">' in page
    assert "Worst layers" in page
    assert "layer2.0.conv1" in page
    assert "Worst images" in page
    assert ".png" in page


@pytest.mark.usefixtures("ruined")
def test_a_ruined_variant_may_be_published_ungated(request_: VariantRequest, console: Console) -> None:
    stored = make_variants(replace(request_, rules=Rules(Thresholds(), off=True)), console)
    variant = stored.manifest.variant("int8")
    assert variant
    assert variant.gate
    assert (variant.gate.rule, variant.gate.passed, variant.gated) == ("off", False, False)
    assert "**ungated**" in (stored.folder / "README.md").read_text()
    assert "ungated" in (stored.folder / "report.int8.html").read_text()


@pytest.mark.usefixtures("ruined")
def test_the_report_goes_where_one_wants_it(request_: VariantRequest, console: Console, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"report: .*mine\.html"):
        make_variants(replace(request_, report=tmp_path / "mine.html", rules=Rules(Thresholds(), fallback=0)), console)
    assert "refused" in (tmp_path / "mine.html").read_text()
    assert not list(tmp_path.glob("colours-*"))


def test_the_report_of_a_published_variant_may_be_had_too(
    request_: VariantRequest, console: Console, tmp_path: Path
) -> None:
    stored = make_variants(replace(request_, report=tmp_path / "mine.html"), console)
    assert (tmp_path / "mine.html").read_bytes() == (stored.folder / "report.int8.html").read_bytes()


def test_a_report_that_cannot_be_written_is_told_before_the_work(
    request_: VariantRequest, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "calibrate", lambda *_: pytest.fail("the slow part began"))
    with pytest.raises(ExportError, match="no such folder"):
        make_variants(replace(request_, report=tmp_path / "absent" / "mine.html"), console)


# Mistakes


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "other"}, StoreError, "no model 'other'"),
        ({"model": "colours@7"}, StoreError, "no version 7"),
        ({"model": "colours@"}, StoreError, "is no version"),
        ({"model": "Colours"}, StoreError, "is no model name"),
        ({"calibrate": Path("absent.zip")}, ImagesError, "neither a folder nor a zip"),
        ({"validate": Path("absent.zip")}, ImagesError, "neither a folder nor a zip"),
    ],
)
def test_mistakes_leave_nothing(
    request_: VariantRequest, console: Console, change: dict[str, object], error: type[Exception], message: str
) -> None:
    before = contents(request_.store)
    with pytest.raises(error, match=message):
        make_variants(replace(request_, **change), console)  # type: ignore[arg-type]
    assert contents(request_.store) == before


def test_a_damaged_model_is_not_converted(request_: VariantRequest, console: Console) -> None:
    path = request_.store / "colours" / "1" / "model.fp32.onnx"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(StoreError, match=r"model\.fp32\.onnx"):
        make_variants(request_, console)


def test_a_model_without_fp32_is_told(
    request_: VariantRequest, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Manifest, "variant", lambda *_: None)
    with pytest.raises(StoreError, match="no fp32 variant"):
        make_variants(request_, console)


def test_interruption_leaves_nothing(
    request_: VariantRequest, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> StoredModel:
        raise KeyboardInterrupt

    before = contents(request_.store)
    monkeypatch.setattr(ModelStore, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_variants(request_, console)
    assert contents(request_.store) == before
