from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.manifest import (
    MAX_MANIFEST_BYTES,
    Accuracy,
    Architecture,
    Calibration,
    ClassActivationMap,
    File,
    Gate,
    Manifest,
    ManifestError,
    Outputs,
    Parity,
    Precision,
    Preprocessing,
    Quantization,
    Source,
    Variant,
    check_name,
    check_version,
    dump_manifest,
    load_manifest,
)

HASH = "0123456789abcdef" * 4


def a_manifest() -> dict[str, Any]:
    """A valid manifest as JSON would hold it."""
    return {
        "schema_version": 1,
        "name": "tiny",
        "version": "3",
        "created": "2026-01-02T03:04:05Z",
        "architecture": {"name": "resnet20", "spec": {"blocks": [3, 3, 3], "stem": "cifar"}, "parameters": 10},
        "source": {"origin": "timm", "file": "a.pth", "sha256": HASH},
        "preprocessing": {
            "height": 32,
            "width": 32,
            "resize": 32,
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.2, 0.2, 0.2],
        },
        "labels": {"file": "labels.txt", "sha256": HASH, "bytes": 10},
        "outputs": {"classes": 10, "embedding": 64, "cam": {"k": 5, "height": 8, "width": 8}},
        "opset": 17,
        "variants": [
            {
                "file": "fp32.onnx",
                "sha256": HASH,
                "bytes": 1000,
                "precision": "fp32",
                "parity": {
                    "images": 5,
                    "image_source": "noise",
                    "batch_sizes": [1, 3],
                    "top1_agreement": 1.0,
                    "max_absolute_error": 1e-5,
                    "max_relative_error": 1e-6,
                    "passed": True,
                    "accuracy": {"pytorch": 0.9, "exported": 0.9, "by_class": {"cat": 0.5}},
                },
            },
            {
                "file": "int8.onnx",
                "sha256": HASH,
                "bytes": 300,
                "precision": "int8",
                "quantization": {
                    "method": "minmax",
                    "calibration_images": 512,
                    "calibration_source": "train.zip",
                    "float_nodes": ["conv_1"],
                },
                "gate": {
                    "rule": "accuracy",
                    "passed": True,
                    "images": 100,
                    "image_source": "test.zip",
                    "top1_agreement": 0.95,
                    "accuracy": 0.896,
                    "baseline_accuracy": 0.9,
                    "max_accuracy_drop": 0.005,
                    "min_agreement": 0.98,
                    "max_absolute_error": 0.5,
                    "by_class": {"cat": 0.5},
                    "baseline_by_class": {"cat": 0.6},
                },
                "report": {"file": "report.html", "sha256": HASH, "bytes": 5},
            },
        ],
    }


def written(folder: Path, content: Any) -> Path:
    path = folder / "manifest.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def changed(place: str, value: Any) -> dict[str, Any]:
    """A valid manifest with one field set; ``place`` is its dotted path."""
    manifest: Any = a_manifest()
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = manifest
    for part in way:
        inner = inner[part]
    inner[last] = value
    return manifest


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


def test_two_variants_of_one_precision_are_refused(tmp_path: Path) -> None:
    manifest = a_manifest()
    manifest["variants"] = manifest["variants"][:1] * 2
    with pytest.raises(ManifestError, match="same precision"):
        load_manifest(written(tmp_path, manifest))


@pytest.mark.parametrize(
    ("variant", "part", "message"),
    [
        (0, "parity", "needs its parity report"),
        (1, "gate", "needs its gate report"),
        (1, "quantization", "how it was quantized"),
    ],
)
def test_a_variant_without_its_report_is_refused(tmp_path: Path, variant: int, part: str, message: str) -> None:
    manifest = a_manifest()
    del manifest["variants"][variant][part]
    with pytest.raises(ManifestError, match=message):
        load_manifest(written(tmp_path, manifest))


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


@pytest.mark.parametrize(
    ("gate", "gated"),
    [
        ({}, True),
        ({"accuracy": 0.895}, True),  # 0.9 - 0.895 is a little more than 0.005 in floating point
        ({"rule": "agreement", "top1_agreement": 0.98}, True),
        ({"passed": False}, False),
        ({"passed": False, "rule": "off"}, False),
    ],
)
def test_gated_is_what_a_gate_admitted(tmp_path: Path, gate: dict[str, Any], gated: bool) -> None:
    values = a_manifest()
    values["variants"][1]["gate"] |= gate
    manifest = load_manifest(written(tmp_path, values))
    assert [variant.gated for variant in manifest.variants] == [True, gated]


def test_a_failed_parity_is_not_gated(tmp_path: Path) -> None:
    manifest = load_manifest(written(tmp_path, changed("variants.0.parity.passed", False)))
    assert not manifest.variants[0].gated


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


# bf16, which has no file of its own


def with_bf16(**changes: Any) -> dict[str, Any]:
    """A valid manifest with bf16 beside the rest."""
    manifest = a_manifest()
    fp32, int8 = manifest["variants"]
    file = {key: fp32[key] for key in ("file", "sha256", "bytes")}
    report = int8["report"] | {"file": "report.bf16.html"}
    gate = int8["gate"] | {"provider": "openvino"}
    manifest["variants"].append(file | {"precision": "bf16", "gate": gate, "report": report} | changes)
    return manifest


def test_bf16_is_the_fp32_file(tmp_path: Path) -> None:
    manifest = load_manifest(written(tmp_path, with_bf16()))
    bf16 = manifest.variant("bf16")
    assert bf16
    assert bf16.gated
    assert bf16.file == "fp32.onnx"
    names = [file.file for file in manifest.files]
    assert names == ["labels.txt", "fp32.onnx", "int8.onnx", "report.html", "report.bf16.html"]


@pytest.mark.parametrize(
    "changes", [{"file": "int8.onnx"}, {"file": "other.onnx"}, {"sha256": HASH[::-1]}, {"bytes": 999}]
)
def test_bf16_of_another_file_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="a bf16 variant is the fp32 file"):
        load_manifest(written(tmp_path, with_bf16(**changes)))


def test_bf16_without_fp32_is_refused(tmp_path: Path) -> None:
    manifest = with_bf16()
    del manifest["variants"][0]
    with pytest.raises(ManifestError, match="a bf16 variant is the fp32 file"):
        load_manifest(written(tmp_path, manifest))


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_bf16_measured_where_there_is_none_is_refused(tmp_path: Path, provider: str) -> None:
    gate = with_bf16()["variants"][2]["gate"] | {"provider": provider}
    with pytest.raises(ManifestError, match="only OpenVINO computes in bf16"):
        load_manifest(written(tmp_path, with_bf16(gate=gate)))


def test_bf16_needs_its_gate(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="needs its gate report"):
        load_manifest(written(tmp_path, with_bf16(gate=None)))


def test_a_manifest_from_before_the_gate_loads(tmp_path: Path) -> None:
    manifest = a_manifest()
    del manifest["variants"][1]
    assert load_manifest(written(tmp_path, manifest)).variants[0].gated


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


# Names


@pytest.mark.parametrize("name", ["a", "0", "resnet50", "a.b_c-d", "x" * 64, "cifar10-resnet16"])
def test_names_that_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "-a", "_a", "A", "a/b", "a b", "ä", "a\n", "x" * 65, "a@1", "a\x00"]
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no model name"):
        check_name(name)


@given(st.text(max_size=70))
def test_a_name_that_is_taken_is_one_folder_and_plain_in_a_url(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert Path("/store", name).parent == Path("/store")
    assert Path("/store", name).resolve() == Path("/store", name)
    assert name.isascii()
    assert not set(name) & set("/\\@%?#&, \n")


@pytest.mark.parametrize("version", ["1", "9", "10", "999999999"])
def test_versions_that_are_taken(version: str) -> None:
    assert check_version(version) == version


@pytest.mark.parametrize("version", ["", "0", "01", "-1", "+1", "1.0", "1\n", " 1", "٣", "1_0", "1234567890", "latest"])
def test_versions_that_are_refused(version: str) -> None:
    with pytest.raises(ValueError, match="no version"):
        check_version(version)


# Round trip

_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_SHARES = st.floats(0, 1)
_POSITIVE = st.integers(1, 2**31)
_HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_FILES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(lambda name: name != "manifest.json")
_PARITIES = st.builds(
    Parity,
    images=_POSITIVE,
    image_source=_TEXT,
    batch_sizes=st.lists(_POSITIVE, max_size=3),
    top1_agreement=_SHARES,
    max_absolute_error=st.floats(0, 1e30),
    max_relative_error=st.floats(0, 1e30),
    passed=st.booleans(),
    accuracy=st.none()
    | st.builds(Accuracy, pytorch=_SHARES, exported=_SHARES, by_class=st.dictionaries(_TEXT, _SHARES, max_size=3)),
)


_GATES = st.builds(
    Gate,
    rule=st.sampled_from(["accuracy", "agreement", "off"]),
    passed=st.just(False),
    images=_POSITIVE,
    image_source=_TEXT,
    top1_agreement=_SHARES,
    accuracy=_SHARES,
    baseline_accuracy=_SHARES,
    max_accuracy_drop=_SHARES,
    min_agreement=_SHARES,
    max_absolute_error=st.floats(0, 1e30),
    by_class=st.dictionaries(_TEXT, _SHARES, max_size=3),
)
_QUANTIZATIONS = st.builds(
    Quantization,
    method=st.sampled_from(["minmax", "entropy", "percentile"]),
    calibration_images=_POSITIVE,
    calibration_source=_TEXT,
    float_nodes=st.lists(_TEXT, max_size=2),
)


_CALIBRATIONS = st.builds(
    Calibration,
    temperature=st.floats(1e-3, 1000),
    images=_POSITIVE,
    held_out=st.integers(0, 10**6),
    image_source=_TEXT,
    bins=st.integers(1, 1000),
    error_before=_SHARES,
    error_after=_SHARES,
    coverage=_SHARES,
    energy=_FINITE,
    max_logit=_FINITE,
    report=st.none() | st.builds(File, file=st.just("report.calibration.html"), sha256=_HASHES, bytes=_POSITIVE),
)


def variants(file: str, precision: Precision) -> st.SearchStrategy[Variant]:
    reports = {"parity": _PARITIES} if precision == "fp32" else {"quantization": _QUANTIZATIONS, "gate": _GATES}
    return st.builds(
        Variant, file=st.just(file), sha256=_HASHES, bytes=_POSITIVE, precision=st.just(precision), **reports
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    classes = draw(_POSITIVE)
    precisions = draw(st.lists(st.sampled_from(["fp32", "fp16", "int8"]), min_size=1, unique=True))
    files = draw(st.lists(_FILES, min_size=len(precisions) + 1, max_size=len(precisions) + 1, unique=True))
    cam = draw(st.none() | st.builds(ClassActivationMap, k=st.integers(1, classes), height=_POSITIVE, width=_POSITIVE))
    return Manifest(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)),
        version=str(draw(st.integers(1, 999_999_999))),
        created=draw(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))),
        architecture=Architecture(
            name=draw(_TEXT),
            spec=draw(st.dictionaries(_TEXT, st.integers() | _TEXT | st.lists(st.integers(), max_size=3), max_size=3)),
            parameters=draw(_POSITIVE),
        ),
        source=Source(origin=draw(_TEXT), file=draw(_TEXT), sha256=draw(_HASHES)),
        preprocessing=Preprocessing(
            height=draw(st.integers(1, 4096)),
            width=draw(st.integers(1, 4096)),
            resize=draw(st.integers(1, 8192)),
            resize_mode=draw(st.sampled_from(["shorter", "squash"])),
            interpolation=draw(st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"])),
            channel_order=draw(st.sampled_from(["rgb", "bgr"])),
            mean=draw(st.tuples(_FINITE, _FINITE, _FINITE)),
            std=draw(st.tuples(*[st.floats(1e-9, 1e9)] * 3)),
        ),
        labels=File(file=files[0], sha256=draw(_HASHES), bytes=draw(_POSITIVE)),
        outputs=Outputs(classes=classes, embedding=draw(st.none() | _POSITIVE), cam=cam),
        opset=draw(_POSITIVE),
        variants=[draw(variants(file, precision)) for file, precision in zip(files[1:], precisions, strict=True)],
        calibration=draw(st.none() | _CALIBRATIONS),
    )


@given(manifest=manifests())
def test_what_is_dumped_loads_the_same(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = dump_manifest(manifest)
    assert text.endswith("}\n")
    assert load_manifest(written(folder, text)) == manifest
    assert dump_manifest(load_manifest(folder / "manifest.json")) == text
