"""The calibration's report as one HTML page: reliability before and after, its bins, the scores, what to do with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from export.calibration.detection import Detection, Scores, detect, reached
from export.calibration.temperature import Floats, Reliability
from export.reports.pages import Plot, render_page, svg
from model_store.manifest import Precision
from model_store.reports import Calibration, GateProvider

REPORT_FILE: Final = "report.calibration.html"
_BUCKETS: Final = 50
_KNOWN, _OTHER, _INK = "#2f6f9f", "#c2571a", "#333333"


@dataclass(frozen=True)
class VariantFindings:
    """One variant on the images set apart, at the temperature and thresholds that fp32 gave."""

    precision: Precision
    provider: GateProvider
    accuracy: float
    error_before: float
    error_after: float
    energy_reached: float
    max_logit_reached: float


@dataclass(frozen=True)
class Findings:
    """What was measured. All but the calibration's own figures is of the images set apart, in fp32.

    model          -- name and version of what was calibrated.
    before, after  -- reliability at temperature 1 and at the calibration's.
    likelihood     -- negative log-likelihood of the labels, before and after.
    known          -- scores of the images set apart; ``outliers``' of the outliers in ``outlier_source``, or None.
    variants       -- fp32 first.
    notes          -- what else a reader should know.
    """

    model: str
    calibration: Calibration
    before: Reliability
    after: Reliability
    likelihood: tuple[float, float]
    accuracy: float
    known: Scores
    outliers: Scores | None
    outlier_source: str | None
    variants: Sequence[VariantFindings]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ScoreFindings:
    """One score: its threshold, the share of images set apart that reach it, and how well it finds outliers."""

    name: str
    limit: float
    reached: float
    detection: Detection | None


@dataclass(frozen=True)
class Bin:
    """A bin before or after: how many images, and their mean confidence and accuracy (None where there are none)."""

    images: int
    confidence: float | None
    accuracy: float | None


def scores(findings: Findings) -> list[ScoreFindings]:
    """Energy and largest logit."""
    calibration, known, outliers = findings.calibration, findings.known, findings.outliers
    found = []
    for name, limit, inside, outside in (
        ("energy", calibration.energy, known.energy, outliers.energy if outliers else None),
        ("max logit", calibration.max_logit, known.max_logit, outliers.max_logit if outliers else None),
    ):
        detection = None if outside is None else detect(inside, outside, limit)
        found.append(ScoreFindings(name, limit, reached(inside, limit), detection))
    return found


def render_report(findings: Findings) -> str:
    """The page."""
    return render_page(
        "calibration_report.html.j2",
        findings=findings,
        calibration=findings.calibration,
        scores=scores(findings),
        bins=list(zip(_bins(findings.before), _bins(findings.after), strict=True)),
        plots=_plots(findings),
    )


def _bins(found: Reliability) -> Iterator[Bin]:
    for count, confidence, accuracy in zip(found.counts, found.confidence, found.accuracy, strict=True):
        yield Bin(int(count), float(confidence), float(accuracy)) if count else Bin(0, None, None)


def _plots(findings: Findings) -> list[Plot]:
    text = (
        "Images by the probability of their top class, and the share of right answers among them. On the dotted line "
        "the model is as often right as it says; bars below it are too sure, above it not sure enough. Paler bars "
        "have fewer images."
    )
    plots = [
        Plot(f"Reliability {when}", text, svg(name, partial(_reliability, of), square=True))
        for name, when, of in (
            ("before", "before: temperature 1", findings.before),
            ("after", f"after: temperature {findings.calibration.temperature:.3f}", findings.after),
        )
    ]
    told = "Images by their energy score, logsumexp of the logits; the line is the threshold."
    if findings.outliers is not None:
        told += " The better the outliers keep to the left of it, the more of them are found."
    return [*plots, Plot("Energy", told, svg("energy", lambda axes: _energy(axes, findings)))]


def _reliability(found: Reliability, axes: Axes) -> None:
    count = len(found.counts)
    share = found.counts / max(1, found.counts.max())
    for i in np.flatnonzero(found.counts):
        # Never quite transparent: a bin of one image is one to see.
        alpha = 0.25 + 0.75 * float(share[i])
        axes.bar((i + 0.5) / count, found.accuracy[i], 0.94 / count, color=_KNOWN, alpha=alpha)
    there = found.counts > 0
    axes.plot(found.confidence[there], found.accuracy[there], "o", color=_INK, markersize=3, label="mean of the bin")
    axes.plot((0, 1), (0, 1), ":", color=_INK, linewidth=1, label="as sure as right")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("probability of the top class")
    axes.set_ylabel("share of right answers")
    axes.set_title(f"expected calibration error {found.error:.2%}", fontsize=9)
    axes.legend(frameon=False, loc="upper left")


def _energy(axes: Axes, findings: Findings) -> None:
    series: list[tuple[str, str, Floats]] = [("the model's own kind", _KNOWN, findings.known.energy)]
    if findings.outliers is not None:
        series.append((f"outliers: {findings.outlier_source}", _OTHER, findings.outliers.energy))
    ends = np.concatenate([values for _, _, values in series])
    edges = np.linspace(float(ends.min()), float(ends.max()) + 1e-9, _BUCKETS + 1)
    for label, colour, values in series:
        weights = np.full(len(values), 100 / len(values))
        axes.hist(values, edges.tolist(), weights=weights, color=colour, alpha=0.6, label=label)
    axes.axvline(findings.calibration.energy, color=_INK, linewidth=1, label="threshold")
    axes.set_xlabel("energy score")
    axes.set_ylabel("images, %")
    axes.legend(frameon=False)
