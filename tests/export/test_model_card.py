"""The card says what a reader needs and nothing that was not measured or told."""

from __future__ import annotations

from datetime import UTC, datetime

from export.checkpoints import Training
from export.labels import CIFAR10
from export.model_card import CardNotes, render_card
from model_store.manifest import (
    Accuracy,
    Architecture,
    ClassActivationMap,
    File,
    Manifest,
    Outputs,
    Parity,
    Preprocessing,
    Source,
    Variant,
)

SHA = "ab" * 32
ACCURACY = Accuracy(pytorch=0.8765, exported=0.8764, by_class=dict.fromkeys(CIFAR10, 0.5))


def manifest(accuracy: Accuracy | None, size: int = 32, file: str = "mine.pth") -> Manifest:
    parity = Parity(
        images=10_000,
        image_source="test.zip",
        batch_sizes=[1, 3, 8],
        top1_agreement=1.0,
        max_absolute_error=2e-5,
        max_relative_error=3e-6,
        passed=True,
        accuracy=accuracy,
    )
    return Manifest(
        name="cifar",
        version="2",
        created=datetime(2026, 1, 2, tzinfo=UTC),
        architecture=Architecture(name="cifar_resnet20", spec={}, parameters=269_722),
        source=Source(origin="export.train", file=file, sha256=SHA),
        preprocessing=Preprocessing(height=size, width=size, resize=size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)),
        labels=File(file="labels.txt", sha256=SHA, bytes=60),
        outputs=Outputs(classes=10, embedding=64, cam=ClassActivationMap(k=5, height=8, width=8)),
        opset=20,
        variants=[Variant(file="model.fp32.onnx", sha256=SHA, bytes=1_090_000, precision="fp32", parity=parity)],
    )


def test_trained_model() -> None:
    training = Training({"arch": "cifar_resnet20", "epochs": 24, "peak_learning_rate": 0.2}, 24, CIFAR10)
    notes = CardNotes("CIFAR-10, re-compressed as JPEG.", ("Accuracy on the original images is higher.",))
    card = render_card(manifest(ACCURACY), CIFAR10, training, notes)
    for text in (
        "# cifar, version 2",
        "269,722 parameters",
        f"SHA-256 `{SHA}`",
        "Data: CIFAR-10, re-compressed as JPEG.\n",
        "24 epochs done",
        "| peak learning rate | 0.2 |",
        "| fp32 | `model.fp32.onnx`, 1.1 MB | 10000 from test.zip | 100.00% | 2.0e-05 | 3.0e-06 |",
        "**87.64%** (PyTorch: 87.65%)",
        "| truck | 50.0% |",
        "The network sees 32x32 pixels",
        "gets one of these labels",
        "- Accuracy on the original images is higher.",
        "airplane, automobile",
    ):
        assert text in card


def test_unknown_is_said_to_be_unknown() -> None:
    card = render_card(manifest(None, size=224), CIFAR10, None, CardNotes())
    assert "Data: not stated" in card
    assert "Recipe: unknown" in card
    assert "## Accuracy" not in card
    assert "The network sees" not in card


def test_long_label_lists_are_cut() -> None:
    labels = tuple(f"class {i}" for i in range(1000))
    assert "class 19 and 980 more, in `labels.txt`" in render_card(manifest(None), labels, None, CardNotes())


def test_labels_cannot_write_markup() -> None:
    labels = ("<script>", "a|b", "[x](y)")
    card = render_card(manifest(None), labels, None, CardNotes())
    assert r"\<script\>, a\|b, \[x\](y)" in card
