"""Examples of the answers of ``/v1/models``."""

from __future__ import annotations

from typing import Any, Final

_VERSION_EXAMPLE: Final[dict[str, Any]] = {
    "name": "cifar10-resnet16",
    "version": "2",
    "default": True,
    "aliases": ["stable"],
    "architecture": "cifar_resnet16",
    "created": "2026-01-01T12:00:00Z",
    "classes": 2,
    "labels": ["cat", "dog"],
    "input": {"height": 32, "width": 32},
    "outputs": {"classes": 2, "embedding": 256, "cam": {"k": 2, "height": 8, "width": 8}},
    "provider": "openvino",
    "precision": "int8",
    "gated": True,
    "passed_over": [],
    "sha256": "0" * 64,
    "variants": [
        {
            "precision": "int8",
            "gated": True,
            "bytes": 1048576,
            "sha256": "0" * 64,
            "in_use": True,
            "reports": [
                {
                    "rule": "accuracy",
                    "passed": True,
                    "provider": "openvino",
                    "images": 10000,
                    "image_source": "test images",
                    "top1_agreement": 0.99,
                    "max_absolute_error": 0.4,
                    "accuracy": 0.892,
                    "baseline_accuracy": 0.893,
                }
            ],
        }
    ],
    "calibration": None,
    "drift": {
        "reference_images": 5000,
        "reference_source": "photos.zip",
        "reference_created": "2026-01-01T12:00:00Z",
        "images": 1000,
        "psi": {"classes": 0.02, "confidence": 0.01, "entropy": 0.0, "energy": 0.31},
        "embedding_distance": 0.12,
    },
    "profile": None,
}
_FAILED_EXAMPLE: Final = {"version": "3", "reason": "3/fp32.onnx: its SHA-256 is not the manifest's"}
MODELS_EXAMPLE: Final[dict[str, Any]] = {
    "models": [_VERSION_EXAMPLE],
    "loading": [],
    "failed": [{"name": "cifar10-resnet16", **_FAILED_EXAMPLE}],
}
MODEL_EXAMPLE: Final[dict[str, Any]] = {
    "name": "cifar10-resnet16",
    "default": True,
    "unloaded": False,
    "aliases": {"stable": "2"},
    "versions": [_VERSION_EXAMPLE],
    "loading": [],
    "failed": [_FAILED_EXAMPLE],
    "store": ["1", "2", "3"],
    "problem": None,
}
SHADOW_EXAMPLE: Final[dict[str, Any]] = {
    "model": "cifar10-resnet16",
    "mode": "shadow",
    "share": 0.1,
    "stable": "1",
    "canary": "2",
    "since": "2026-01-01T12:00:00Z",
    "compared": 1200,
    "agreed": 1176,
    "agreement": 0.98,
    "probability_difference": 0.012,
    "dropped": 34,
    "failed": 0,
    "seconds": {
        "images": 1024,
        "stable": {"p50": 0.0041, "p99": 0.0093},
        "canary": {"p50": 0.0039, "p99": 0.0088},
    },
}
