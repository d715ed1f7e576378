"""The gate: what passes, what is refused, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from export.images.image_sets import ImageSet, Pixels
from export.variants.gate import (
    Comparison,
    Floats,
    GateError,
    Logits,
    Thresholds,
    compare,
    cpu_logits,
    judge,
    logits_of,
)
from export.variants.quantize import quantized
from tests.export import colours

LABELS = ("cat", "dog", "elk")


def a_comparison(
    expected: Sequence[int], found: Sequence[int], targets: Sequence[int] | None = None, error: float = 0.5
) -> Comparison:
    n = len(expected)
    return Comparison(
        "made up",
        np.array(expected),
        np.array(found),
        None if targets is None else np.array(targets),
        np.full(n, error, np.float32),
        np.ones(n, np.float32),
    )


def flips(n: int, wrong_before: int, wrong_after: int) -> Comparison:
    """``n`` cats, of which fp32 takes the first few for dogs, the variant the last few."""
    cats = np.zeros(n, int)
    before, after = cats.copy(), cats.copy()
    before[:wrong_before] = 1
    after[n - wrong_after :] = 1
    return a_comparison(before, after, cats)


# Judging


@pytest.mark.parametrize(
    ("before", "after", "passed"), [(0, 0, True), (10, 10, True), (10, 15, True), (10, 16, False), (100, 0, True)]
)
def test_with_labels_accuracy_decides(before: int, after: int, passed: bool) -> None:
    """5 of 1,000 images are 0.5 points; that answers flipped both ways does not matter."""
    verdict = judge(flips(1000, before, after), LABELS, Thresholds())
    assert verdict.gate.rule == "accuracy"
    assert verdict.gate.passed == passed == (not verdict.reasons)
    assert verdict.gate.baseline_accuracy == pytest.approx(1 - before / 1000)
    assert verdict.gate.accuracy == pytest.approx(1 - after / 1000)
    if not passed:
        (reason,) = verdict.reasons
        assert reason == "its accuracy, 98.40%, is 0.60 points below fp32's 99.00% (limit 0.5)"


@pytest.mark.parametrize(("changed", "passed"), [(0, True), (20, True), (21, False), (1000, False)])
def test_without_labels_agreement_decides(changed: int, passed: bool) -> None:
    comparison = replace(flips(1000, 0, changed), targets=None)
    verdict = judge(comparison, LABELS, Thresholds())
    assert verdict.gate.rule == "agreement"
    assert verdict.gate.passed == passed == (not verdict.reasons)
    assert verdict.gate.top1_agreement == pytest.approx(1 - changed / 1000)
    assert (verdict.gate.accuracy, verdict.gate.baseline_accuracy, verdict.gate.by_class) == (None, None, {})


def test_thresholds_are_options() -> None:
    labelled, unlabelled = flips(100, 0, 3), replace(flips(100, 0, 3), targets=None)
    assert judge(labelled, LABELS, Thresholds(max_accuracy_drop=0.03)).gate.passed
    assert not judge(labelled, LABELS, Thresholds(max_accuracy_drop=0.029, min_agreement=0)).gate.passed
    assert judge(unlabelled, LABELS, Thresholds(min_agreement=0.97)).gate.passed
    assert not judge(unlabelled, LABELS, Thresholds(min_agreement=0.971, max_accuracy_drop=1)).gate.passed


@given(
    n=st.integers(1, 500),
    wrong=st.tuples(st.integers(0, 500), st.integers(0, 500)),
    limit=st.integers(0, 100),
)
def test_the_drop_is_counted_exactly(n: int, wrong: tuple[int, int], limit: int) -> None:
    """In whole images, as the rounding of shares must not decide."""
    before, after = (min(count, n) for count in wrong)
    verdict = judge(flips(n, before, after), LABELS, Thresholds(max_accuracy_drop=limit / 1000))
    assert verdict.gate.passed == (1000 * (after - before) <= limit * n)


def test_off_judges_nothing_and_is_no_pass() -> None:
    verdict = judge(flips(10, 0, 10), LABELS, Thresholds(), off=True)
    assert (verdict.gate.rule, verdict.gate.passed, verdict.reasons) == ("off", False, ())
    assert (verdict.gate.baseline_accuracy, verdict.gate.accuracy) == (1, 0)


@pytest.mark.parametrize("off", [False, True])
def test_logits_that_are_no_numbers_are_always_refused(off: bool) -> None:
    comparison = flips(4, 0, 0)
    comparison.errors[2] = np.inf
    verdict = judge(comparison, LABELS, Thresholds(), off=off)
    assert verdict.reasons == ("the logits of 1 of 4 images are not finite",)
    assert not verdict.gate.passed
    assert verdict.gate.max_absolute_error == 0.5


def test_accuracy_by_class_of_both() -> None:
    verdict = judge(a_comparison([0, 0, 1, 2], [0, 1, 1, 2], [0, 0, 1, 1]), LABELS, Thresholds(1, 0))
    assert verdict.gate.baseline_by_class == {"cat": 1.0, "dog": 0.5}
    assert verdict.gate.by_class == {"cat": 0.5, "dog": 0.5}


# Comparing


def an_image_set(images: Pixels, targets: Sequence[int] | None = None) -> ImageSet:
    return ImageSet("made up", len(images), None if targets is None else tuple(targets), None, lambda: iter(images))


def fixed(logits: Floats) -> tuple[ImageSet, Logits]:
    """Images whose first pixel is their number, and a function that gives each its row."""
    images = np.zeros((len(logits), 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(logits))
    return an_image_set(images), lambda pixels: logits[pixels[:, 0, 0, 0]]


def test_what_is_kept_of_each_image(console: Console) -> None:
    true = np.array([[1, 5, 2], [4, 0, 3], [9, 9, 1]], np.float32)
    other = np.array([[1, 4, 2], [4, 0, 4.5], [9, 9, 3]], np.float32)
    images, baseline = fixed(true)
    found = compare(images, baseline, fixed(other)[1], console)
    assert found.expected.tolist() == [1, 0, 0]
    assert found.found.tolist() == [1, 2, 0]
    assert found.errors.tolist() == [1, 1.5, 2]
    assert found.margins.tolist() == [3, 1, 0]
    assert found.changed.tolist() == [False, True, False]
    assert (found.source, found.targets, found.broken) == ("made up", None, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_image_with_a_bad_logit_is_counted(console: Console, bad: float) -> None:
    images, baseline = fixed(np.ones((3, 4), np.float32))
    _, variant = fixed(np.array([[1] * 4, [1, 1, bad, 1], [1] * 4], np.float32))
    found = compare(images, baseline, variant, console)
    assert found.broken == 1
    assert found.errors[[0, 2]].tolist() == [0, 0]


def test_a_baseline_that_is_no_number_is_nothing_to_compare_with(console: Console) -> None:
    images, bad = fixed(np.full((2, 3), np.nan, np.float32))
    with pytest.raises(GateError, match="fp32's own logits"):
        compare(images, bad, bad, console)


def test_other_classes_cannot_be_compared(console: Console) -> None:
    images, baseline = fixed(np.ones((2, 3), np.float32))
    with pytest.raises(GateError, match=r"\(2, 3\), the variant \(2, 4\)"):
        compare(images, baseline, fixed(np.ones((2, 4), np.float32))[1], console)


def test_one_class_has_no_margin(console: Console) -> None:
    images, baseline = fixed(np.ones((2, 1), np.float32))
    assert compare(images, baseline, baseline, console).margins.tolist() == [0, 0]


def test_images_are_held_a_few_at_a_time(console: Console) -> None:
    """Ten thousand images of 224x224 must not be in memory at once."""
    held, most = 0, 0

    def read() -> object:
        nonlocal held, most
        for _ in range(40):
            held += 1
            most = max(most, held)
            yield np.zeros((224, 224, 3), np.uint8)

    def run(pixels: Pixels) -> Floats:
        nonlocal held
        held = 0
        return np.zeros((len(pixels), 2), np.float32)

    images = ImageSet("many", 40, None, None, read)  # type: ignore[arg-type]
    assert len(compare(images, run, run, console).expected) == 40
    assert most <= 8


def test_all_logits_in_order() -> None:
    images, run = fixed(np.arange(60, dtype=np.float32).reshape(20, 3))
    assert np.array_equal(logits_of(images.read(), run)[:, 0], np.arange(0, 60, 3))


# Real variants


@pytest.fixture(scope="module")
def fp32() -> Logits:
    return cpu_logits(colours.graph().model.SerializeToString())


def test_fp32_passes_against_itself(fp32: Logits, console: Console) -> None:
    verdict = judge(compare(colours.labelled(), fp32, fp32, console), colours.LABELS, Thresholds(0, 1))
    assert verdict.gate.passed
    assert (verdict.gate.accuracy, verdict.gate.top1_agreement, verdict.gate.max_absolute_error) == (1, 1, 0)


@pytest.mark.parametrize("labels", [True, False])
def test_a_deliberately_ruined_variant_is_refused(fp32: Logits, console: Console, labels: bool) -> None:
    """Calibrated to a twentieth of the true ranges: most of every feature map is cut off."""
    ruined = cpu_logits(quantized(colours.shrunken(colours.calibrated())).SerializeToString())
    sound = cpu_logits(quantized(colours.calibrated()).SerializeToString())
    images = colours.labelled() if labels else colours.IMAGES
    thresholds = Thresholds(max_accuracy_drop=0.1, min_agreement=0.9)
    assert judge(compare(images, fp32, sound, console), colours.LABELS, thresholds).gate.passed
    verdict = judge(compare(images, fp32, ruined, console), colours.LABELS, thresholds)
    assert not verdict.gate.passed
    assert "below fp32's" in verdict.reasons[0] if labels else "fp32's on" in verdict.reasons[0]


def test_bf16_run_by_a_provider_goes_through_the_same_gate(fp32: Logits, console: Console) -> None:
    """Any function from pixels to logits can be judged; this one rounds as bf16 does."""

    def rounded(run: Logits) -> Logits:
        return lambda pixels: (run(pixels).view(np.uint32) & 0xFFFF0000).view(np.float32)

    verdict = judge(compare(colours.labelled(), fp32, rounded(fp32), console), colours.LABELS, Thresholds(0.05))
    assert verdict.gate.passed
    assert verdict.gate.max_absolute_error > 0


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path.read_bytes()])
def test_a_file_that_is_no_model(tmp_path: Path, make: Callable[[Path], Path | bytes]) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"junk")
    with pytest.raises(GateError, match="cannot load"):
        cpu_logits(make(path))
