"""A manifest's variants: one of each precision, each with the report that admitted it; bf16 is the fp32 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_store.manifest import ManifestError, load_manifest

from .manifests import HASH, a_manifest, changed, written


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
