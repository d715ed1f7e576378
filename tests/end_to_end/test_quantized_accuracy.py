"""int8, fp16 and bf16 on real data: within 0.5 points of fp32 on the test images of CIFAR-10."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from rich.console import Console

from export.images.image_sets import real_images
from export.variants.gate import Thresholds, compare, cpu_logits, judge
from model_store.manifest import Gate, Variant
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.stored_model import StoredModel
from service.providers import Share, open_session
from tests.cifar import AUTHORS, LabelledImages
from tests.exports import exported
from tests.openvino import need_bf16, need_openvino

pytestmark = pytest.mark.slow

EMBEDDED = "cifar10-resnet16"


@pytest.fixture(scope="module")
def store(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared checkpoints, exported, and the embedded model."""
    root = tmp_path_factory.mktemp("models")
    for name, checkpoint in AUTHORS.items():
        exported(shared / "checkpoints" / checkpoint.file, "--arch", f"cifar_{name}", "--name", name, "--store", root)
    embedded = ModelStore(EMBEDDED_MODELS).resolve(EMBEDDED)
    shutil.copytree(embedded.folder, root / EMBEDDED / embedded.manifest.version)
    return root


Quantized = tuple[StoredModel, Variant, Gate]


@pytest.fixture
def quantized(store: Path, shared: Path, cifar_test: LabelledImages) -> Callable[..., Quantized]:
    """Quantizes a model of the store, and prints what came of it."""
    train = shared / "data" / "cifar10-train.zip"
    return functools.partial(_quantized, store, ("--calibrate", train, "--validate", cifar_test.path))


def _quantized(store: Path, images: tuple[object, ...], name: str, *options: str) -> Quantized:
    began = perf_counter()
    first = ModelStore(store).versions(name)[0]
    exported("quantize", f"{name}@{first}", "--store", store, *images, *options)
    stored = ModelStore(store).resolve(name)
    variant = stored.manifest.variants[-1]
    assert variant.gate
    figures = {
        "model": name,
        "precision": variant.precision,
        "provider": variant.gate.provider,
        "fp32": variant.gate.baseline_accuracy,
        "variant": variant.gate.accuracy,
        "agreement": variant.gate.top1_agreement,
        "method": variant.quantization.method if variant.quantization else None,
        "seconds": round(perf_counter() - began),
    }
    print(json.dumps(figures))  # noqa: T201 - the figures are what one runs this for
    return stored, variant, variant.gate


@pytest.mark.parametrize("name", [*AUTHORS, EMBEDDED])
def test_int8_is_within_half_a_point_of_fp32(
    quantized: Callable[..., Quantized], cifar_test: LabelledImages, name: str
) -> None:
    """By the defaults, and with every layer quantized: nothing had to fall back."""
    stored, variant, gate = quantized(name)
    stored.verify()
    assert (variant.precision, variant.gated, gate.rule, gate.images) == ("int8", True, "accuracy", cifar_test.count)
    assert gate.accuracy is not None
    assert gate.baseline_accuracy is not None
    assert gate.accuracy >= gate.baseline_accuracy - 0.005
    assert variant.quantization
    assert variant.quantization.float_nodes == []
    assert gate.top1_agreement >= 0.98
    fp32 = stored.manifest.variant("fp32")
    assert fp32
    assert variant.bytes < 0.4 * fp32.bytes


def test_fp16_answers_as_fp32_does(quantized: Callable[..., Quantized]) -> None:
    _, variant, gate = quantized("resnet20", "--precision", "fp16")
    assert (variant.precision, variant.gated) == ("fp16", True)
    assert gate.top1_agreement >= 0.999


def test_bf16_run_by_openvino_passes_the_same_gate(
    quantized: Callable[..., Quantized], cifar_test: LabelledImages
) -> None:
    """The same fp32 file."""
    need_bf16()
    stored, variant, gate = quantized(EMBEDDED, "--precision", "bf16")
    assert (variant.precision, variant.gated, gate.provider) == ("bf16", True, "openvino")
    assert (variant.file, gate.images) == (stored.variant("fp32").file, cifar_test.count)
    assert gate.top1_agreement < 1  # it is no fp32


def test_int8_on_openvino_answers_as_on_the_cpu_provider(
    quantized: Callable[..., Quantized], cifar_test: LabelledImages
) -> None:
    """The gate ran on ONNX Runtime's CPU provider; its figures hold where int8 is served, float parts in fp32."""
    need_openvino()
    stored, variant, gate = quantized(EMBEDDED, "--method", "minmax")
    images = real_images(cifar_test.path, stored.manifest.preprocessing, stored.labels())
    opened = open_session(stored.path(variant), "openvino", Share(1))

    def served(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(opened.session.run(["logits"], {"image": pixels})[0], np.float32)

    fp32 = stored.path(stored.manifest.variants[0])
    verdict = judge(compare(images, cpu_logits(fp32), served, Console(stderr=True)), stored.labels(), Thresholds())
    print(verdict.gate.model_dump_json(exclude={"by_class", "baseline_by_class"}))  # noqa: T201
    assert verdict.reasons == ()
    assert verdict.gate.accuracy == pytest.approx(gate.accuracy, abs=0.003)
