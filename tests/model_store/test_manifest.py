"""What a manifest says, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_store.manifest import MAX_MANIFEST_BYTES, ClassActivationMap, ManifestError, load_manifest

from .manifests import HASH, a_manifest, changed, written


def test_a_valid_manifest_loads(tmp_path: Path) -> None:
    manifest = load_manifest(written(tmp_path, a_manifest()))
    assert manifest.name == "tiny"
    assert manifest.preprocessing.std == (0.2, 0.2, 0.2)
    assert manifest.outputs.cam == ClassActivationMap(k=5, height=8, width=8)
    assert manifest.variant("fp32") is manifest.variants[0]
    assert manifest.variant("int8") is manifest.variants[1]
    assert manifest.variant("fp16") is None
    assert [file.file for file in manifest.files] == ["labels.txt", "fp32.onnx", "int8.onnx", "report.html"]


def test_a_manifest_is_frozen(tmp_path: Path) -> None:
    manifest = load_manifest(written(tmp_path, a_manifest()))
    with pytest.raises(ValueError, match="frozen"):
        manifest.name = "other"  # type: ignore[misc]


_PARTS = ["", "architecture", "source", "preprocessing", "labels", "outputs", "outputs.cam", "variants.0"]
_PARTS += ["variants.0.parity", "variants.0.parity.accuracy"]
_PARTS += ["variants.1", "variants.1.quantization", "variants.1.gate", "variants.1.report"]


@pytest.mark.parametrize("part", _PARTS)
def test_an_unknown_field_is_refused_by_name(tmp_path: Path, part: str) -> None:
    place = f"{part}.surprise".removeprefix(".")
    path = written(tmp_path, changed(place, 1))
    with pytest.raises(ManifestError, match=place) as caught:
        load_manifest(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", [field for field in a_manifest() if field != "schema_version"])
def test_a_missing_field_is_refused_by_name(tmp_path: Path, field: str) -> None:
    manifest = a_manifest()
    del manifest[field]
    with pytest.raises(ManifestError, match=field):
        load_manifest(written(tmp_path, manifest))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema_version", 2),
        ("schema_version", "1"),
        ("name", "UPPER"),
        ("name", "../tiny"),
        ("name", ""),
        ("name", "a\n"),
        ("version", "0"),
        ("version", "01"),
        ("version", "v1"),
        ("version", 3),
        ("created", "yesterday"),
        ("opset", 0),
        ("architecture.parameters", 0),
        ("architecture.spec", [1]),
        ("source.sha256", "abc"),
        ("source.sha256", HASH.upper()),
        ("source.sha256", HASH + "\n"),
        ("preprocessing.height", 0),
        ("preprocessing.height", 4097),
        ("preprocessing.height", 8.5),
        ("preprocessing.resize", -1),
        ("preprocessing.interpolation", "box"),
        ("preprocessing.resize_mode", "longest"),
        ("preprocessing.channel_order", "grb"),
        ("preprocessing.mean", [0.5, 0.5]),
        ("preprocessing.mean", [0.5] * 4),
        ("preprocessing.std", [0.2, 0.0, 0.2]),
        ("preprocessing.std", [0.2, -1, 0.2]),
        ("labels.file", "../labels.txt"),
        ("labels.file", "/etc/passwd"),
        ("labels.file", "a/b"),
        ("labels.file", ".hidden"),
        ("labels.file", "a\\b"),
        ("labels.file", ""),
        ("labels.bytes", 0),
        ("outputs.classes", 0),
        ("outputs.embedding", 0),
        ("outputs.cam.k", 11),
        ("variants", []),
        ("variants.0.precision", "fp8"),
        ("variants.0.file", "a b"),
        ("variants.0.parity.top1_agreement", 1.01),
        ("variants.0.parity.max_absolute_error", -0.1),
        ("variants.0.parity.images", 0),
        ("variants.0.parity.accuracy.pytorch", 2),
        ("variants.1.quantization.method", "guess"),
        ("variants.1.quantization.calibration_images", 0),
        ("variants.1.gate.rule", "none"),
        ("variants.1.gate.provider", "npu"),
        ("variants.1.gate.provider", None),
        ("variants.1.gate.images", 0),
        ("variants.1.gate.max_absolute_error", -1),
        ("variants.1.gate.by_class", {"cat": 1.1}),
        ("variants.1.report.file", "../report.html"),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, place: str, value: Any) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(written(tmp_path, changed(place, value)))
    wanted = place if place != "outputs.cam.k" else "manifest"
    assert f"{wanted}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("variants.0.parity.passed", "yes"),
        ("variants.0.parity.passed", 1),
        ("variants.1.gate.passed", "yes"),
        ("variants.0.bytes", "1000"),
        ("preprocessing.height", "32"),
        ("preprocessing.mean", ["0.5", "0.5", "0.5"]),
        ("opset", True),
    ],
)
def test_a_value_of_another_type_is_not_guessed_at(tmp_path: Path, place: str, value: Any) -> None:
    """Above all ``passed``, which decides whether a file may be served."""
    with pytest.raises(ManifestError):
        load_manifest(written(tmp_path, changed(place, value)))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_must_be_finite(tmp_path: Path, number: str) -> None:
    text = json.dumps(changed("variants.0.parity.max_absolute_error", 123456)).replace("123456", number)
    with pytest.raises(ManifestError):
        load_manifest(written(tmp_path, text))


@pytest.mark.parametrize("file", ["manifest.json", "labels.txt"])
def test_no_file_of_the_model_stands_in_for_another(tmp_path: Path, file: str) -> None:
    """Publishing writes manifest.json over whatever has that name, and one file cannot be labels and weights."""
    with pytest.raises(ManifestError):
        load_manifest(written(tmp_path, changed("variants.0.file", file)))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", b"\xff\xfe", "[" * 100_000, "{}" * 2])
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path: Path, content: str | bytes) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert "\n" not in str(caught.value)


def test_a_missing_or_unreadable_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        load_manifest(tmp_path / "manifest.json")
    with pytest.raises(ManifestError):
        load_manifest(tmp_path)


def test_a_manifest_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="longer"):
        load_manifest(written(tmp_path, " " * (MAX_MANIFEST_BYTES + 1)))
