"""A manifest's reports of the calibration and the gates: none says more than its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_store.manifest import ManifestError, dump_manifest, load_manifest

from .manifests import HASH, a_manifest, changed, written

CALIBRATION = {
    "temperature": 0.74,
    "images": 5000,
    "image_source": "test.zip",
    "bins": 15,
    "error_before": 0.06,
    "error_after": 0.02,
    "coverage": 0.95,
    "energy": -3.2,
    "max_logit": 2.4,
    "report": {"file": "report.calibration.html", "sha256": HASH, "bytes": 5},
}


def test_a_calibration_and_its_report_belong_to_the_model(tmp_path: Path) -> None:
    loaded = load_manifest(written(tmp_path, a_manifest() | {"calibration": CALIBRATION}))
    assert loaded.calibration is not None
    assert (loaded.calibration.temperature, loaded.calibration.held_out) == (0.74, 0)
    assert loaded.calibration.report in loaded.files
    assert load_manifest(written(tmp_path, a_manifest())).calibration is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", "1"),
        ("images", 0),
        ("held_out", -1),
        ("bins", 0),
        ("error_after", 1.1),
        ("coverage", -0.1),
        ("report", {"file": "../x.html", "sha256": HASH, "bytes": 5}),
        ("scale", 1),
    ],
)
def test_a_wrong_calibration_is_refused_by_name(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(ManifestError, match=rf"calibration\.{field}"):
        load_manifest(written(tmp_path, a_manifest() | {"calibration": CALIBRATION | {field: value}}))


def test_a_calibration_report_has_a_name_of_its_own(tmp_path: Path) -> None:
    taken = CALIBRATION | {"report": {"file": "report.html", "sha256": HASH, "bytes": 5}}
    with pytest.raises(ManifestError, match="two files have the same name"):
        load_manifest(written(tmp_path, a_manifest() | {"calibration": taken}))


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"rule": "off"}, "off cannot have been passed"),
        ({"accuracy": 0.8949}, "dropped by more"),
        ({"rule": "agreement"}, "agreement is below"),
        ({"accuracy": None, "baseline_accuracy": None}, "needs both accuracies"),
        ({"accuracy": None}, "go together"),
        ({"passed": False, "baseline_accuracy": None}, "go together"),
    ],
)
def test_a_gate_that_claims_more_than_its_figures_is_refused(
    tmp_path: Path, gate: dict[str, Any], message: str
) -> None:
    manifest = a_manifest()
    manifest["variants"][1]["gate"] |= gate
    with pytest.raises(ManifestError, match=message):
        load_manifest(written(tmp_path, manifest))


def test_a_gate_that_says_no_provider_was_the_cpu_providers(tmp_path: Path) -> None:
    variant = load_manifest(written(tmp_path, a_manifest())).variants[1]
    assert variant.gate
    assert variant.gate.provider == "cpu"


@pytest.mark.parametrize("provider", ["cpu", "openvino", "cuda"])
def test_a_gate_says_where_it_was_measured(tmp_path: Path, provider: str) -> None:
    manifest = load_manifest(written(tmp_path, changed("variants.1.gate.provider", provider)))
    again = load_manifest(written(tmp_path, dump_manifest(manifest)))
    assert again == manifest
    assert again.variants[1].gate
    assert again.variants[1].gate.provider == provider
