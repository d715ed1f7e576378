"""int8, fp16 and bf16 on real data: within 0.5 points of fp32 on all 10,000 test images of CIFAR-10."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime as ort
import pytest
from rich.console import Console

from export.gate import Logits, Thresholds, compare, cpu_logits, judge
from export.image_sets import real_images
from model_store.manifest import Gate, Variant
from model_store.store import EMBEDDED_MODELS, ModelStore, StoredModel
from service.providers import Share, open_session
from tests.end_to_end.conftest import ROOT

pytestmark = pytest.mark.slow

CHECKPOINTS = {
    "resnet20": "resnet20-12fca82f.th",
    "resnet32": "resnet32-d509ac18.th",
    "resnet56": "resnet56-4bfd9763.th",
}
EMBEDDED = "cifar10-resnet16"


def program(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "export", *map(str, words)], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def store(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared checkpoints, exported, and the embedded model's first version."""
    root = tmp_path_factory.mktemp("models")
    for name, file in CHECKPOINTS.items():
        program(shared / "checkpoints" / file, "--arch", f"cifar_{name}", "--name", name, "--store", root)
    shutil.copytree(EMBEDDED_MODELS / EMBEDDED / "1", root / EMBEDDED / "1")
    return root


def quantized(store: Path, shared: Path, name: str, *options: str) -> tuple[StoredModel, Variant, Gate]:
    data = shared / "data"
    images = ("--calibrate", data / "cifar10-train.zip", "--validate", data / "cifar10-test.zip")
    began = perf_counter()
    program("quantize", f"{name}@1", "--store", store, *images, *options)
    stored = ModelStore(store).resolve(name)
    variant = stored.manifest.variants[-1]
    assert variant.gate
    figures = {
        "model": name,
        "precision": variant.precision,
        "fp32": variant.gate.baseline_accuracy,
        "variant": variant.gate.accuracy,
        "agreement": variant.gate.top1_agreement,
        "method": variant.quantization.method if variant.quantization else None,
        "seconds": round(perf_counter() - began),
    }
    print(json.dumps(figures))  # noqa: T201 - the figures are what one runs this for
    return stored, variant, variant.gate


@pytest.mark.parametrize("name", [*CHECKPOINTS, EMBEDDED])
def test_int8_is_within_half_a_point_of_fp32(store: Path, shared: Path, name: str) -> None:
    """By the defaults, and with every layer quantized: nothing had to fall back."""
    stored, variant, gate = quantized(store, shared, name)
    stored.verify()
    assert (variant.precision, variant.gated, gate.rule, gate.images) == ("int8", True, "accuracy", 10_000)
    assert gate.accuracy is not None
    assert gate.baseline_accuracy is not None
    assert gate.accuracy >= gate.baseline_accuracy - 0.005
    assert variant.quantization
    assert variant.quantization.float_nodes == []
    assert gate.top1_agreement >= 0.98
    fp32 = stored.manifest.variant("fp32")
    assert fp32
    assert variant.bytes < 0.4 * fp32.bytes


def test_fp16_answers_as_fp32_does(store: Path, shared: Path) -> None:
    _, variant, gate = quantized(store, shared, "resnet20", "--precision", "fp16")
    assert (variant.precision, variant.gated) == ("fp16", True)
    assert gate.top1_agreement >= 0.999


def openvino(path: Path, hint: str) -> Logits:
    """``path`` on OpenVINO, computing in ``hint``."""
    plugin = pytest.importorskip("onnxruntime_ep_openvino")
    open_session(path, "openvino", Share(1))  # registers the plugin
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    config = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": hint}})
    devices = [d for d in ort.get_ep_devices() if d.ep_name == plugin.get_ep_name() and d.device.type == CPU]
    options.add_provider_for_devices(devices[:1], {"load_config": config})
    session = ort.InferenceSession(path, options)
    return lambda pixels: np.asarray(session.run(["logits"], {"image": pixels})[0], np.float32)


CPU = ort.OrtHardwareDeviceType.CPU


def test_bf16_run_by_a_provider_passes_the_same_gate(store: Path, shared: Path) -> None:
    """The same fp32 file; where the CPU has no bf16, OpenVINO computes in fp32 and the gate has nothing to object."""
    stored = ModelStore(store).resolve(EMBEDDED, "1")
    path = stored.path(stored.manifest.variants[0])
    images = real_images(shared / "data" / "cifar10-test.zip", stored.manifest.preprocessing, stored.labels())
    comparison = compare(images, cpu_logits(path), openvino(path, "bf16"), Console(stderr=True))
    verdict = judge(comparison, stored.labels(), Thresholds())
    print(verdict.gate.model_dump_json(exclude={"by_class", "baseline_by_class"}))  # noqa: T201
    assert verdict.reasons == ()


def test_int8_on_openvino_answers_as_on_the_cpu_provider(store: Path, shared: Path) -> None:
    """The gate ran on ONNX Runtime's CPU provider; its figures hold where int8 is served, float parts in fp32."""
    stored, variant, gate = quantized(store, shared, EMBEDDED, "--method", "minmax")
    images = real_images(shared / "data" / "cifar10-test.zip", stored.manifest.preprocessing, stored.labels())
    opened = open_session(stored.path(variant), "openvino", Share(1))

    def served(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(opened.session.run(["logits"], {"image": pixels})[0], np.float32)

    fp32 = stored.path(stored.manifest.variants[0])
    verdict = judge(compare(images, cpu_logits(fp32), served, Console(stderr=True)), stored.labels(), Thresholds())
    print(verdict.gate.model_dump_json(exclude={"by_class", "baseline_by_class"}))  # noqa: T201
    assert verdict.reasons == ()
    assert verdict.gate.accuracy == pytest.approx(gate.accuracy, abs=0.003)
