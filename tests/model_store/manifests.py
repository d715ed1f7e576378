"""Manifests as JSON would hold them: valid, changed, written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
