"""The gate's report as one HTML page: figures, plots, worst layers, worst images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from export.reports.pages import render_page
from export.variants import gate_plots
from export.variants.gate import Comparison, Floats, Verdict
from export.variants.sensitivity import LayerHarm
from model_store.manifest import Precision
from model_store.reports import Quantization

_WORST_IMAGES: Final = 20
_WORST_LAYERS: Final = 20
_METHODS: Final = {"minmax": "min-max", "entropy": "entropy", "percentile": "percentile"}


@dataclass(frozen=True)
class Findings:
    """What the page shows.

    model          -- name and version of what was converted.
    quantization   -- None for bf16, which is the fp32 file.
    files          -- the images' paths, in the comparison's order.
    harms          -- the layers by the harm they do, the worst first; empty where none was looked for.
    float_layers   -- names of the layers kept in fp32 by choice.
    bytes          -- of the variant's file; ``baseline_bytes`` of fp32's.
    notes          -- what else a reader should know.
    """

    model: str
    precision: Precision
    quantization: Quantization | None
    verdict: Verdict
    comparison: Comparison
    labels: Sequence[str]
    files: Sequence[str]
    harms: Sequence[LayerHarm]
    float_layers: Sequence[str]
    bytes: int
    baseline_bytes: int
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class WorstImage:
    """An image that another arithmetic answers otherwise, or further off than the rest."""

    file: str
    label: str
    expected: str
    found: str
    margin: float
    error: float


def render_report(findings: Findings) -> str:
    """The page."""
    gate = findings.verdict.gate
    return render_page(
        "gate_report.html.j2",
        findings=findings,
        gate=gate,
        outcome=_outcome(findings.verdict),
        method=_METHODS[findings.quantization.method] if findings.quantization else None,
        harms=findings.harms[:_WORST_LAYERS],
        worst=worst_images(findings.comparison, findings.labels, findings.files),
        changed=int(findings.comparison.changed.sum()),
        plots=gate_plots.plots(findings.comparison, findings.labels),
    )


def _outcome(verdict: Verdict) -> str:
    if verdict.reasons:
        return "refused"
    return "ungated" if verdict.gate.rule == "off" else "passed"


def worst_images(
    comparison: Comparison, labels: Sequence[str], files: Sequence[str], count: int = _WORST_IMAGES
) -> list[WorstImage]:
    """Up to ``count`` images: answers that became wrong first, then those that changed, then by logit error."""
    spoilt = comparison.changed & _right(comparison)
    order = np.lexsort((-_sortable(comparison.errors), -comparison.margins, ~comparison.changed, ~spoilt))
    # Among unchanged answers the margin says nothing: there, only the error counts.
    changed = [int(i) for i in order if comparison.changed[i]]
    kept = [int(i) for i in np.argsort(-_sortable(comparison.errors), kind="stable") if not comparison.changed[i]]
    return [_worst(comparison, labels, files, i) for i in (*changed, *kept)[:count]]


def _right(comparison: Comparison) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Images that fp32 answers rightly; all of them where there are no labels."""
    if comparison.targets is None:
        return np.ones(len(comparison.expected), np.bool_)
    return np.asarray(comparison.expected == comparison.targets)


def _sortable(errors: Floats) -> Floats:
    return np.nan_to_num(errors, posinf=float(np.finfo(np.float32).max))


def _worst(comparison: Comparison, labels: Sequence[str], files: Sequence[str], i: int) -> WorstImage:
    return WorstImage(
        file=files[i],
        label="" if comparison.targets is None else labels[int(comparison.targets[i])],
        expected=labels[int(comparison.expected[i])],
        found=labels[int(comparison.found[i])],
        margin=float(comparison.margins[i]),
        error=float(comparison.errors[i]),
    )
