"""The card says what a reader needs and nothing that was not measured or told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from export.checkpoints.labels import CIFAR10
from export.checkpoints.training import Training
from export.reports.model_card import CardNotes, render_card, renew_card
from model_store.manifest import (
    Accuracy,
    Architecture,
    Calibration,
    ClassActivationMap,
    File,
    Gate,
    Manifest,
    Outputs,
    Parity,
    Preprocessing,
    Quantization,
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


def test_a_model_from_an_onnx_file_was_not_compared_with_pytorch() -> None:
    base = manifest(ACCURACY)
    imported = base.model_copy(update={"source": base.source.model_copy(update={"origin": "onnx"})})
    card = render_card(imported, CIFAR10, None, CardNotes())
    assert "PyTorch" not in card
    assert "## Parity with the given file\n" in card
    assert "provider against the given file in ONNX Runtime too, on" in card
    assert "(the given file: 87.65%)" in card


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


def test_a_network_with_logits_alone() -> None:
    bare = manifest(None).model_copy(update={"outputs": Outputs(classes=10, embedding=None, cam=None)})
    assert "- Outputs: 10 logits\n" in render_card(bare, CIFAR10, None, CardNotes())


def test_a_squashed_input_is_not_called_a_crop() -> None:
    base = manifest(None)
    squashed = base.preprocessing.model_copy(update={"resize_mode": "squash", "channel_order": "bgr"})
    card = render_card(base.model_copy(update={"preprocessing": squashed}), CIFAR10, None, CardNotes())
    assert "The whole image is resized to 32x32 pixels" in card
    assert "of values from 0 to 1 in the order BGR" in card
    assert "the middle" not in card


# Other precisions


def with_int8(gate: Gate, source: str = "train.zip", float_nodes: Sequence[str] = ()) -> Manifest:
    base = manifest(ACCURACY)
    how = Quantization(
        method="percentile", calibration_images=512, calibration_source=source, float_nodes=list(float_nodes)
    )
    report = File(file="report.int8.html", sha256=SHA, bytes=5)
    variant = Variant(
        file="model.int8.onnx",
        sha256=SHA,
        bytes=300_000,
        precision="int8",
        quantization=how,
        gate=gate,
        report=report,
    )
    return base.model_copy(update={"version": "3", "variants": [*base.variants, variant]})


def a_gate(**changes: object) -> Gate:
    values: dict[str, object] = {
        "rule": "accuracy",
        "passed": True,
        "images": 10_000,
        "image_source": "test.zip",
        "top1_agreement": 0.9865,
        "accuracy": 0.8749,
        "baseline_accuracy": 0.8764,
        "max_accuracy_drop": 0.005,
        "min_agreement": 0.98,
        "max_absolute_error": 1.5,
    }
    return Gate.model_validate(values | changes)


def row(card: str, start: str) -> list[str]:
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {start} | `")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_a_gated_variant_is_shown_with_its_figures() -> None:
    card = render_card(with_int8(a_gate()), CIFAR10, None, CardNotes())
    section = card.split("## Other precisions")[1]
    assert row(section, "int8") == [
        "int8",
        "`model.int8.onnx`, 0.3 MB",
        "percentile, 512 images from train.zip",
        "10,000 from test.zip",
        "98.65%",
        "87.49% (fp32: 87.64%)",
        "passed, by accuracy",
        "cpu",
        "[page](report.int8.html)",
    ]
    assert "int8" not in card.split("## Parity with PyTorch")[1].split("##")[0]


def test_bf16_is_shown_as_the_fp32_file() -> None:
    base = with_int8(a_gate())
    fp32 = base.variants[0]
    variant = Variant(
        file=fp32.file, sha256=fp32.sha256, bytes=fp32.bytes, precision="bf16", gate=a_gate(provider="openvino")
    )
    card = render_card(base.model_copy(update={"variants": [*base.variants, variant]}), CIFAR10, None, CardNotes())
    found = row(card, "bf16")
    assert found[1:3] == ["`model.fp32.onnx`, 1.1 MB", "none"]
    assert found[6:8] == ["passed, by accuracy", "openvino"]


def test_an_ungated_variant_is_shown_as_such() -> None:
    gate = a_gate(rule="off", passed=False, accuracy=None, baseline_accuracy=None)
    card = render_card(with_int8(gate, float_nodes=["a", "b"]), CIFAR10, None, CardNotes())
    found = row(card, "int8")
    assert found[2] == "percentile, 512 images from train.zip, 2 nodes kept in fp32"
    assert found[5:7] == ["not measured", "**ungated**"]


def test_sources_of_images_cannot_write_markdown() -> None:
    card = render_card(with_int8(a_gate(), source="a|b](http://x)"), CIFAR10, None, CardNotes())
    assert "a\\|b\\](http://x)" in card


def test_without_other_precisions_there_is_no_such_section() -> None:
    assert "Other precisions" not in render_card(manifest(ACCURACY), CIFAR10, None, CardNotes())


def test_a_later_version_keeps_what_only_its_maker_knew() -> None:
    training = Training({"arch": "cifar_resnet20", "epochs": 3}, 3, CIFAR10)
    first = render_card(manifest(ACCURACY), CIFAR10, training, CardNotes("Toys.", ("Never at night.",)))
    second = renew_card(first, with_int8(a_gate()), CIFAR10)
    assert second.startswith("# cifar, version 3\n")
    assert second.split("## Training")[1].split("\n## ")[0] == first.split("## Training")[1].split("\n## ")[0]
    assert "Never at night." in second
    assert "## Other precisions" in second
    assert renew_card(second, with_int8(a_gate()), CIFAR10) == second


def test_a_card_without_sections_is_written_anew() -> None:
    model = with_int8(a_gate())
    for previous in ("", "just text", "# title\n"):
        assert renew_card(previous, model, CIFAR10) == render_card(model, CIFAR10, None, CardNotes())


# Calibration

CALIBRATION = Calibration(
    temperature=0.74,
    images=5000,
    held_out=4999,
    image_source="test|.zip",
    bins=15,
    error_before=0.0635,
    error_after=0.0245,
    coverage=0.95,
    energy=3.2257,
    max_logit=2.4446,
    report=File(file="report.calibration.html", sha256=SHA, bytes=5),
)


def calibrated(calibration: Calibration | None = CALIBRATION) -> Manifest:
    return with_int8(a_gate()).model_copy(update={"calibration": calibration})


def test_a_calibration_is_shown_with_its_figures() -> None:
    card = render_card(calibrated(), CIFAR10, None, CardNotes())
    section = card.split("## Calibration")[1].split("\n## ")[0]
    for text in (
        "softmax(logits / 0.7400)",
        "fitted on 5,000 images of test\\|.zip. On 4,999 others",
        "is **2.45%** with it and 6.35% without ([page](report.calibration.html))",
        "95% of the images have an energy, logsumexp(logits), of at least 3.226, and a largest logit of at least 2.445",
    ):
        assert text in section
    assert "not calibrated" not in card


def test_without_a_report_or_images_apart_nothing_is_claimed() -> None:
    bare = CALIBRATION.model_copy(update={"report": None, "held_out": 0, "coverage": 0.975})
    card = render_card(calibrated(bare), CIFAR10, None, CardNotes())
    assert "On the same the expected" in card
    assert "97.5% of the images" in card
    assert "report.calibration" not in card


def test_a_renewed_card_no_longer_says_that_nothing_is_calibrated() -> None:
    first = render_card(calibrated(None), CIFAR10, None, CardNotes("Toys.", ("Never at night.",)))
    assert "- Probabilities are not calibrated.\n" in first
    second = renew_card(first, calibrated(), CIFAR10)
    assert "not calibrated" not in second
    assert "- Never at night." in second
    assert second.index("## Calibration") < second.index("## Known limits")
    assert renew_card(second, calibrated(), CIFAR10) == second
