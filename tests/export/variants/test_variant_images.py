"""Which images calibrate a variant, and which judge it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from export.errors import ExportError
from export.variants import variant_images
from export.variants.candidates import Rules
from export.variants.gate import GateError, Thresholds
from export.variants.variant import VariantRequest, make_variants

from .conftest import LOOSE


def test_int8_needs_images_to_calibrate_with(request_: VariantRequest, console: Console) -> None:
    with pytest.raises(ExportError, match="int8 needs images to calibrate with"):
        make_variants(replace(request_, calibrate=None), console)


def test_without_validation_images_agreement_is_judged_on_the_rest(
    request_: VariantRequest, console: Console, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variant_images, "_FEWEST", 40)
    request = replace(request_, calibrate=images / "test", validate=None, calibration_images=20)
    stored = make_variants(request, console)
    gate = stored.manifest.variants[1].gate
    assert gate
    assert (gate.rule, gate.images, gate.accuracy) == ("agreement", 40, None)
    assert "that were not used" in (stored.folder / "report.int8.html").read_text()


def test_where_no_images_are_left_those_of_the_calibration_judge(request_: VariantRequest, console: Console) -> None:
    stored = make_variants(replace(request_, validate=None), console)
    gate = stored.manifest.variants[1].gate
    assert gate
    assert (gate.rule, gate.images) == ("agreement", 24)
    assert "too few images to set some apart" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_rest_too_small_to_tell_anything_is_not_relied_on(
    request_: VariantRequest, console: Console, images: Path
) -> None:
    request = replace(request_, calibrate=images / "test", validate=None, calibration_images=59)
    gate = make_variants(request, console).manifest.variants[1].gate
    assert gate
    assert gate.images == 60


@pytest.mark.parametrize(
    ("thresholds", "off", "told"),
    [(LOOSE, False, False), (Thresholds(max_accuracy_drop=0.01), True, False), (Thresholds(0.0166), False, True)],
)
def test_a_gate_that_one_image_decides_is_told(
    request_: VariantRequest, console: Console, thresholds: Thresholds, off: bool, told: bool
) -> None:
    try:
        make_variants(replace(request_, rules=Rules(thresholds, off=off, fallback=0)), console)
    except GateError:
        assert told
    assert ("with 60 images, one changed answer" in console.file.getvalue()) == told  # type: ignore[attr-defined]


def test_images_with_other_labels_give_agreement(
    request_: VariantRequest, console: Console, tmp_path: Path, images: Path
) -> None:
    folder = tmp_path / "other"
    (folder / "mule").mkdir(parents=True)
    for path in (images / "test" / "ant").iterdir():
        (folder / "mule" / path.name).write_bytes(path.read_bytes())
    gate = make_variants(replace(request_, validate=folder), console).manifest.variants[1].gate
    assert gate
    assert gate.rule == "agreement"
    assert "'mule' is not one of the labels" in console.file.getvalue()  # type: ignore[attr-defined]
