"""Are large JPEGs, decoded smaller, still the same to the model? Published as its next version if so.

Every variant is compared with itself, on images decoded whole and scaled.
Only images that are scaled count: the others would only raise the agreement.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from export.images.files import list_images, read_images, spread
from export.images.image_sets import Pixels
from export.images.subsets import UNLABELLED, batches
from export.publishing import publish_next
from export.reports.progress import shown
from export.variants.gate import GateError, Logits
from export.variants.gate_providers import ProviderMissing, open_logits
from model_store.manifest import JpegScaling, Precision, Preprocessing
from model_store.reports import ROUNDING, Gate, GateProvider
from model_store.store import ModelStore
from model_store.stored_model import StoredModel

FEWEST: Final = 100
_BATCH_PIXELS: Final = 256 * 1024


@dataclass(frozen=True)
class DraftRequest:
    """Which model, and what it must keep to.

    model         -- NAME or NAME@VERSION in ``store``.
    images        -- a folder or zip of photos like those that will be served; the large JPEGs among them count.
    margin        -- a scaled image has at least so many times the side that the resize needs.
    min_agreement -- of every variant's top classes with its own on whole images; a share.
    """

    model: str
    store: Path | str
    images: Path
    margin: float = 2.0
    min_agreement: float = 0.995


@dataclass(frozen=True)
class Findings:
    """What was measured: a gate's report a variant, and processor milliseconds for an image, decoded and resized."""

    gates: dict[Precision, Gate]
    whole_ms: float
    scaled_ms: float

    @property
    def worst(self) -> Gate:
        return min(self.gates.values(), key=lambda gate: gate.top1_agreement)


class _Timed:
    """Images as tensors, and the processor time that this took."""

    def __init__(self, source: Path, names: list[str], preprocessing: Preprocessing) -> None:
        self._source, self._names, self._preprocessing = source, names, preprocessing
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Pixels]:
        for file in read_images(self._source, self._names):
            began = time.thread_time()
            pixels = file.tensor(self._preprocessing)
            self.seconds += time.thread_time() - began
            yield pixels


def measure(stored: StoredModel, request: DraftRequest, console: Console) -> Findings:
    """Compare every variant of ``stored``; ``GateError`` where there are too few images or no logits to compare."""
    whole = stored.manifest.preprocessing.model_copy(update={"jpeg_scaling": None})
    # Not judged yet, so not validated; it goes into no manifest.
    trial = JpegScaling.model_construct(margin=request.margin)  # type: ignore[call-arg]
    scaled = whole.model_copy(update={"jpeg_scaling": trial})
    names = _large(request.images, scaled, request.margin)
    pairs = [_Timed(request.images, names, spec) for spec in (whole, scaled)]
    providers = {v.precision: v.gate.provider if v.gate else "cpu" for v in stored.manifest.variants}
    runs = {precision: _opened(stored, precision, provider) for precision, provider in providers.items()}
    agreeing = dict.fromkeys(runs, 0)
    errors = dict.fromkeys(runs, 0.0)
    progress = shown(pairs[0], "comparing whole with scaled", len(names), console)
    for before, after in zip(batches(progress, _BATCH_PIXELS), batches(pairs[1], _BATCH_PIXELS), strict=True):
        for precision, run in runs.items():
            expected, found = run(before), run(after)
            error = float(np.abs(found - expected).max())
            if not math.isfinite(error):
                raise GateError(f"logits of the {precision} variant are not finite")
            agreeing[precision] += int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
            errors[precision] = max(errors[precision], error)
    gates = {
        precision: _gate(request, provider, len(names), agreeing[precision] / len(names), errors[precision])
        for precision, provider in providers.items()
    }
    whole_ms, scaled_ms = (1000 * timed.seconds / len(names) for timed in pairs)
    return Findings(gates, whole_ms, scaled_ms)


def _opened(stored: StoredModel, precision: Precision, provider: GateProvider) -> Logits:
    try:
        return open_logits(stored.path(stored.variant(precision)), provider, precision)
    except ProviderMissing as error:
        raise GateError(
            f"{error}; every variant is compared, {precision} too, so run this on a machine that can serve it"
        ) from error


def _large(source: Path, scaled: Preprocessing, margin: float) -> list[str]:
    """The images that are large enough, evenly spread where there are more than it takes."""
    names = list_images(source)
    large = [file.path for file in read_images(source, names) if file.scales(scaled)]
    if len(large) < FEWEST:
        raise GateError(
            f"{source}: {len(large)} of {len(names)} images are JPEGs large enough to be decoded smaller at margin "
            f"{margin:g}; {FEWEST} are needed to tell the agreement"
        )
    return spread(large, UNLABELLED)


def _gate(request: DraftRequest, provider: GateProvider, images: int, agreement: float, error: float) -> Gate:
    return Gate(
        rule="agreement",
        provider=provider,
        passed=agreement >= request.min_agreement - ROUNDING,
        images=images,
        image_source=request.images.name,
        top1_agreement=agreement,
        max_accuracy_drop=0.0,
        min_agreement=request.min_agreement,
        max_absolute_error=error,
    )


def publish(store: ModelStore, stored: StoredModel, findings: Findings, margin: float) -> StoredModel:
    """The next version of the model, the same but for ``jpeg_scaling``; ``GateError`` where a variant failed."""
    worst = findings.worst
    if not worst.passed:
        failed = ", ".join(precision for precision, gate in findings.gates.items() if not gate.passed)
        raise GateError(
            f"smaller decoding is refused: {failed} gives the same top class on {worst.top1_agreement:.2%} of the "
            f"images (limit {worst.min_agreement:.2%}); a larger --margin changes less"
        )
    scaling = JpegScaling(margin=margin, gate=worst)
    preprocessing = stored.manifest.preprocessing.model_copy(update={"jpeg_scaling": scaling})
    return publish_next(store, stored, lambda _: {"preprocessing": preprocessing})
