"""Is another arithmetic as good as fp32? The gate before a variant is published as servable.

Both sides are functions from pixels to logits, so the same comparison serves an
int8 or fp16 file and the fp32 file run by a provider in bf16. On labelled images
accuracy decides, as near-ties flip both ways; without labels the agreement of
the top classes does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console

from export.errors import ExportError
from export.graphs.contract import INPUT
from export.images.image_sets import ImageSet, Pixels
from export.images.subsets import batches
from export.parity import ParityError, open_session
from export.reports.progress import shown
from model_store.reports import ROUNDING, Gate, GateProvider, GateRule

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

# uint8 [n, height, width, 3] to float32 [n, classes].
Logits = Callable[[Pixels], Floats]

_BATCH_PIXELS: Final = 256 * 1024


class GateError(ExportError):
    """A variant that is refused, or cannot be compared; the message says why."""


@dataclass(frozen=True)
class Thresholds:
    """What passes: ``max_accuracy_drop`` below fp32's accuracy, ``min_agreement`` with its top classes; shares."""

    max_accuracy_drop: float = 0.005
    min_agreement: float = 0.98


@dataclass(frozen=True)
class Comparison:
    """A few numbers for each image, in the set's order.

    source   -- where the images are from.
    expected -- fp32's top class.
    found    -- the variant's.
    targets  -- the labels' class numbers, or None.
    errors   -- the largest absolute error of a logit; infinite where the variant's logits are not all finite.
    margins  -- how far fp32's largest logit is above its second.
    """

    source: str
    expected: Numbers
    found: Numbers
    targets: Numbers | None
    errors: Floats
    margins: Floats

    @property
    def changed(self) -> Flags:
        """Images with another top class than fp32's."""
        return np.asarray(self.expected != self.found)

    @property
    def broken(self) -> int:
        """Images with a logit that is not finite."""
        return int(np.isinf(self.errors).sum())


@dataclass(frozen=True)
class Verdict:
    """The report for the manifest, and why the variant is refused (nothing where it is not)."""

    gate: Gate
    reasons: tuple[str, ...]


def cpu_logits(model: Path | bytes) -> Logits:
    """An ONNX file, or its content, on ONNX Runtime's CPU provider; ``GateError`` where it cannot be loaded."""
    try:
        session = open_session(model)
    except ParityError as error:
        raise GateError(str(error)) from error
    return logits_by(session)


def logits_by(session: Any) -> Logits:
    """What an opened ``onnxruntime.InferenceSession`` gives of pixels."""

    def run(pixels: Pixels) -> Floats:
        (logits,) = session.run(["logits"], {INPUT: pixels})
        return np.asarray(logits, np.float32)

    return run


def compare(images: ImageSet, baseline: Logits, variant: Logits, console: Console) -> Comparison:
    """Run both on ``images``; ``GateError`` where they cannot be compared."""
    expected: list[Numbers] = []
    found: list[Numbers] = []
    errors: list[Floats] = []
    margins: list[Floats] = []
    pixels = shown(images.read(), f"comparing with fp32 on {images.name}", images.count, console)
    for batch in batches(pixels, _BATCH_PIXELS):
        true, other = baseline(batch), variant(batch)
        if true.shape != other.shape:
            raise GateError(f"fp32 gives logits of shape {true.shape}, the variant {other.shape}")
        if not np.isfinite(true).all():
            raise GateError("fp32's own logits are not finite: there is nothing to compare with")
        expected.append(true.argmax(axis=1))
        found.append(other.argmax(axis=1))
        errors.append(_errors(true, other))
        margins.append(_margins(true))
    return Comparison(
        images.name,
        np.concatenate(expected),
        np.concatenate(found),
        None if images.targets is None else np.array(images.targets, np.int64),
        np.concatenate(errors),
        np.concatenate(margins),
    )


def logits_of(images: Iterable[Pixels], run: Logits) -> Floats:
    """All logits ``[n, classes]`` of ``images``."""
    return np.concatenate([run(batch) for batch in batches(images, _BATCH_PIXELS)])


def _errors(expected: Floats, found: Floats) -> Floats:
    """The largest error of each image."""
    finite: Flags = np.asarray(np.isfinite(found).all(axis=1))
    errors = np.abs(np.where(finite[:, None], found, 0) - expected).max(axis=1)
    return np.where(finite, errors, np.inf).astype(np.float32)


def _margins(logits: Floats) -> Floats:
    if logits.shape[1] < 2:
        return np.zeros(len(logits), np.float32)
    second, first = np.partition(logits, -2, axis=1)[:, -2:].T
    return np.asarray(first - second)


def judge(
    comparison: Comparison,
    labels: Sequence[str],
    thresholds: Thresholds,
    off: bool = False,
    provider: GateProvider = "cpu",
) -> Verdict:
    """The report on ``comparison`` and what keeps it from passing; a pure function.

    ``provider`` is what ran the variant. With ``off`` nothing is judged but that the logits are numbers, and the
    report says "not passed".
    """
    n = len(comparison.expected)
    agreeing = n - int(comparison.changed.sum())
    accuracy = baseline = None
    if comparison.targets is not None:
        accuracy = float((comparison.found == comparison.targets).mean())
        baseline = float((comparison.expected == comparison.targets).mean())
    rule: GateRule = "agreement" if comparison.targets is None else "accuracy"
    reasons = []
    if comparison.broken:
        reasons.append(f"the logits of {comparison.broken} of {n} images are not finite")
    if not off:
        reasons += _failures(agreeing / n, accuracy, baseline, thresholds)
    finite = comparison.errors[np.isfinite(comparison.errors)]
    gate = Gate(
        rule="off" if off else rule,
        passed=not off and not reasons,
        provider=provider,
        images=n,
        image_source=comparison.source,
        top1_agreement=agreeing / n,
        accuracy=accuracy,
        baseline_accuracy=baseline,
        max_accuracy_drop=thresholds.max_accuracy_drop,
        min_agreement=thresholds.min_agreement,
        max_absolute_error=float(finite.max(initial=0.0)),
        by_class=_by_class(comparison.found, comparison.targets, labels),
        baseline_by_class=_by_class(comparison.expected, comparison.targets, labels),
    )
    return Verdict(gate, tuple(reasons))


def _failures(
    agreement: float, accuracy: float | None, baseline: float | None, thresholds: Thresholds
) -> Iterator[str]:
    if accuracy is not None and baseline is not None:
        drop = baseline - accuracy
        if drop > thresholds.max_accuracy_drop + ROUNDING:
            yield (
                f"its accuracy, {accuracy:.2%}, is {100 * drop:.2f} points below fp32's {baseline:.2%} "
                f"(limit {100 * thresholds.max_accuracy_drop:g})"
            )
    elif agreement < thresholds.min_agreement - ROUNDING:
        yield f"its top class is fp32's on {agreement:.2%} of the images (limit {100 * thresholds.min_agreement:g} %)"


def _by_class(answers: Numbers, targets: Numbers | None, labels: Sequence[str]) -> dict[str, float]:
    """Accuracy by label, of the labels that there are images of."""
    if targets is None:
        return {}
    right: Flags = np.asarray(answers == targets)
    return {label: float(right[targets == i].mean()) for i, label in enumerate(labels) if (targets == i).any()}
