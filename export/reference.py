"""What a stored model says of the images it is meant for, counted, and published as its next version.

The logits are fp32's, by ONNX Runtime on its CPU provider. No labels are needed,
and nothing of a single image is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console

from export.errors import ExportError
from export.graphs.contract import INPUT
from export.images.subsets import Source, batches
from export.parity import open_session
from export.publishing import publish_next
from export.reports.progress import shown
from model_store.reference import BINS, MOST_CLASSES, Bins, Floats, Reference, Signals, signals
from model_store.store import ModelStore
from model_store.stored_model import StoredModel
from model_store.verified import describe_file

EMBEDDING_FILE: Final = "reference.npy"
FEWEST: Final = 200
_BATCH_PIXELS: Final = 256 * 1024


class ReferenceImagesError(ExportError):
    """Images that make no reference; the message says why."""


@dataclass(frozen=True)
class Measured:
    """The reference, but for its file; ``embedding`` float32 ``[2, D]``: each dimension's mean and standard deviation,
    None where the graph has no embedding."""

    reference: Reference
    embedding: Floats | None


class _Moments:
    """Mean and standard deviation of vectors, in float64 and about the first batch's mean, so that nothing cancels."""

    def __init__(self) -> None:
        self._count = 0
        self._origin: npt.NDArray[np.float64] | None = None
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def add(self, batch: Floats) -> None:
        wide = batch.astype(np.float64)
        if self._origin is None:
            self._origin = wide.mean(axis=0)
        wide -= self._origin
        self._count += len(wide)
        self._sum += wide.sum(axis=0)
        self._squares += (wide**2).sum(axis=0)

    def found(self) -> Floats | None:
        """float32 ``[2, D]``; None where nothing was added."""
        if self._origin is None:
            return None
        mean = self._sum / self._count
        variance = np.maximum(0, self._squares / self._count - mean**2)
        return np.stack([self._origin + mean, np.sqrt(variance)]).astype(np.float32)


def measure(stored: StoredModel, images: Path, console: Console) -> Measured:
    """Run fp32 on all ``images``, a folder or zip; ``ReferenceImagesError`` where they are too few."""
    source = Source.open(images, stored.manifest.preprocessing, ())
    count = len(source.files)
    if count < FEWEST:
        raise ReferenceImagesError(f"{images}: {count} images; a reference needs at least {FEWEST}")
    calibration = stored.manifest.calibration
    temperature = 1.0 if calibration is None else calibration.temperature
    session = open_session(stored.path(stored.variant("fp32")))
    names = ["logits"] if stored.manifest.outputs.embedding is None else ["logits", "embedding"]
    pixels = shown(source.spread(count).images.read(), f"running fp32 on {images.name}", count, console)
    seen: list[Signals] = []
    moments = _Moments()
    for batch in batches(pixels, _BATCH_PIXELS):
        found = session.run(names, {INPUT: batch})
        if not all(np.isfinite(values).all() for values in found):
            raise ReferenceImagesError(f"{images}: the model gives values that are no numbers")
        seen.append(signals(np.asarray(found[0], np.float32), temperature))
        for embedding in found[1:]:
            moments.add(embedding)
    return Measured(
        reference_of(_joined(seen), stored.manifest.outputs.classes, temperature, images.name), moments.found()
    )


def _joined(parts: Iterable[Signals]) -> Signals:
    parts = list(parts)
    return Signals(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Signals)))


def reference_of(seen: Signals, classes: int, temperature: float, source: str) -> Reference:
    """The histograms of ``seen``, with energy bins that hold as many images each."""
    often = np.argsort(-np.bincount(seen.classes, minlength=classes), kind="stable")[:MOST_CLASSES]
    edges = np.quantile(seen.energy, np.arange(1, BINS) / BINS).astype(np.float32)
    bins = Bins.at(often.tolist(), classes, edges.tolist(), {"confidence": BINS, "entropy": BINS})
    counts = bins.count(seen)
    return Reference(
        images=len(seen.classes),
        image_source=source,
        created=datetime.now(UTC).replace(microsecond=0),
        temperature=temperature,
        top_classes=tuple(often.tolist()),
        energy_edges=tuple(edges.tolist()),
        classes=tuple(counts["classes"].tolist()),
        confidence=tuple(counts["confidence"].tolist()),
        entropy=tuple(counts["entropy"].tolist()),
        energy=tuple(counts["energy"].tolist()),
    )


def publish(store: ModelStore, stored: StoredModel, measured: Measured) -> StoredModel:
    """The next version of the model: the same, with this reference."""

    def make(staged: Path) -> dict[str, Any]:
        if measured.embedding is None:
            return {"reference": measured.reference}
        path = staged / EMBEDDING_FILE
        np.save(path, measured.embedding)
        return {"reference": measured.reference.model_copy(update={"embedding": describe_file(path)})}

    return publish_next(store, stored, make)
