"""How sure is a stored model allowed to be? Measured on labelled images, and published as its next version.

The images are halved by label. One half fits the temperature and the thresholds,
the other one says what they are worth. The logits are fp32's, by ONNX Runtime on
its CPU provider; the other variants are measured at the same temperature, each
on the provider of its gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from export.calibration.calibration_report import REPORT_FILE, Findings, VariantFindings, render_report
from export.calibration.detection import Scores, reached, threshold
from export.calibration.temperature import (
    BINS,
    CalibrationError,
    Numbers,
    Reliability,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from export.images.image_sets import ImageSet
from export.images.subsets import NamedImages, Source, batches
from export.publishing import publish_next
from export.reports.progress import shown
from export.variants.gate import Floats, Logits
from export.variants.gate_providers import ProviderMissing, open_logits
from model_store.manifest import Precision
from model_store.reports import Calibration, GateProvider
from model_store.store import ModelStore
from model_store.stored_model import StoredModel
from model_store.verified import describe_file

FEWEST: Final = 100
# Below this many held-out images the error that is left is mostly chance.
_FEW: Final = 1000
_BATCH_PIXELS: Final = 256 * 1024
# So much more accurate than when it was exported, the model has probably seen the images.
_TOO_GOOD: Final = 0.03


@dataclass(frozen=True)
class CalibrateRequest:
    """What to calibrate, and on what.

    model    -- NAME or NAME@VERSION in ``store``.
    images   -- a folder or zip, a folder a label, of images that the model was not trained on.
    outliers -- images of anything else, to see whether the scores tell them apart; None: not looked at.
    coverage -- the share of images that reach the thresholds.
    """

    model: str
    store: Path | str
    images: Path
    outliers: Path | None = None
    coverage: float = 0.95


@dataclass(frozen=True)
class _Run:
    """A variant, opened where its gate was."""

    precision: Precision
    provider: GateProvider
    logits: Logits


def measure(stored: StoredModel, request: CalibrateRequest, console: Console) -> Findings:
    """Fit and judge; ``CalibrationError`` where the images are too few, have no labels, or tell no temperature."""
    source = Source.open(request.images, stored.manifest.preprocessing, stored.labels())
    if source.targets is None:
        raise CalibrationError(f"{request.images}: calibration needs a folder a label: {source.note}")
    if len(source.files) < FEWEST:
        raise CalibrationError(f"{request.images}: {len(source.files)} images; calibration needs at least {FEWEST}")
    notes: list[str] = []
    fitted, held_out = source.halves()
    runs = _open(stored, notes)
    fit_logits = _logits(fitted.images, runs[:1], console)["fp32"]
    temperature = fit_temperature(fit_logits, _targets(fitted))
    found = _logits(held_out.images, runs, console)
    truth = _targets(held_out)
    before, after = (reliability(found["fp32"], truth, t) for t in (1.0, temperature))
    if after.error >= before.error:
        notes.append(
            f"temperature {temperature:.3f} does not lower the error of the images set apart ({before.error:.2%} to "
            f"{after.error:.2%}): it stays 1"
        )
        temperature, after = 1.0, before
    limits = Scores.of(fit_logits)
    calibration = Calibration(
        temperature=temperature,
        images=fitted.images.count,
        held_out=held_out.images.count,
        image_source=request.images.name,
        bins=BINS,
        error_before=before.error,
        error_after=after.error,
        coverage=request.coverage,
        energy=threshold(limits.energy, request.coverage),
        max_logit=threshold(limits.max_logit, request.coverage),
    )
    notes += _cautions(stored, source, found["fp32"], truth)
    return Findings(
        model=f"{stored.manifest.name} version {stored.manifest.version}",
        calibration=calibration,
        before=before,
        after=after,
        likelihood=_likelihoods(found["fp32"], truth, temperature),
        accuracy=_accuracy(found["fp32"], truth),
        known=Scores.of(found["fp32"]),
        outliers=_outliers(stored, request.outliers, runs[:1], console),
        outlier_source=request.outliers.name if request.outliers else None,
        variants=[_variant(run, found[run.precision], truth, calibration) for run in runs],
        notes=notes,
    )


def _open(stored: StoredModel, notes: list[str]) -> list[_Run]:
    """fp32 first, then the others that can be run here; of those that cannot, a note."""
    runs = [_Run("fp32", "cpu", open_logits(stored.path(stored.variant("fp32")), "cpu", "fp32"))]
    for variant in stored.manifest.variants:
        if variant.precision == "fp32":
            continue
        provider = variant.gate.provider if variant.gate else "cpu"
        try:
            runs.append(
                _Run(variant.precision, provider, open_logits(stored.path(variant), provider, variant.precision))
            )
        except ProviderMissing as error:
            notes.append(f"{variant.precision} is not measured: {error}")
    return runs


def _logits(images: ImageSet, runs: Sequence[_Run], console: Console) -> Mapping[Precision, Floats]:
    """Every variant's logits ``[n, classes]``; each image is decoded once."""
    found: dict[Precision, list[Floats]] = {run.precision: [] for run in runs}
    text = f"running {', '.join(found)} on {images.name}"
    for batch in batches(shown(images.read(), text, images.count, console), _BATCH_PIXELS):
        for run in runs:
            logits = run.logits(batch)
            if not np.isfinite(logits).all():
                raise CalibrationError(f"logits of the {run.precision} variant are not finite")
            found[run.precision].append(logits)
    return {precision: np.concatenate(parts) for precision, parts in found.items()}


def _targets(images: NamedImages) -> Numbers:
    return np.array(images.images.targets, np.int64)


def _accuracy(logits: Floats, truth: Numbers) -> float:
    return float((logits.argmax(axis=1) == truth).mean())


def _likelihoods(logits: Floats, truth: Numbers, temperature: float) -> tuple[float, float]:
    first, last = (negative_log_likelihood(logits, truth, t) for t in (1.0, temperature))
    return first, last


def _outliers(stored: StoredModel, path: Path | None, runs: Sequence[_Run], console: Console) -> Scores | None:
    if path is None:
        return None
    images = Source.open(path, stored.manifest.preprocessing, ()).unlabelled().images
    return Scores.of(_logits(images, runs, console)["fp32"])


def _variant(run: _Run, logits: Floats, truth: Numbers, calibration: Calibration) -> VariantFindings:
    scores = Scores.of(logits)
    errors: list[Reliability] = [reliability(logits, truth, t) for t in (1.0, calibration.temperature)]
    return VariantFindings(
        precision=run.precision,
        provider=run.provider,
        accuracy=_accuracy(logits, truth),
        error_before=errors[0].error,
        error_after=errors[1].error,
        energy_reached=reached(scores.energy, calibration.energy),
        max_logit_reached=reached(scores.max_logit, calibration.max_logit),
    )


def _cautions(stored: StoredModel, source: Source, logits: Floats, truth: Numbers) -> list[str]:
    """What makes the figures less than they seem."""
    notes = []
    labels = stored.labels()
    if missing := len(set(range(len(labels))) - set(source.targets or ())):
        notes.append(f"{missing} of {len(labels)} classes have no images: of them the figures say nothing")
    if len(truth) < _FEW:
        notes.append(f"with {len(truth)} images to measure on, much of the error that is left is chance")
    parity = stored.variant("fp32").parity
    accuracy = _accuracy(logits, truth)
    if parity and parity.accuracy and accuracy > parity.accuracy.exported + _TOO_GOOD:
        notes.append(
            f"fp32 is right on {accuracy:.2%} of these images, at its export on {parity.accuracy.exported:.2%}: if it "
            "was trained on them, it is surer of them than of others, and so is this calibration"
        )
    return notes


def publish(store: ModelStore, stored: StoredModel, findings: Findings) -> StoredModel:
    """The next version of the model: the same, with this calibration and its report."""

    def make(staged: Path) -> dict[str, Any]:
        page = staged / REPORT_FILE
        page.write_text(render_report(findings), encoding="utf-8", newline="\n")
        return {"calibration": findings.calibration.model_copy(update={"report": describe_file(page)})}

    return publish_next(store, stored, make)
