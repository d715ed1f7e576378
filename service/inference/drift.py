"""Are the images that come those the model is meant for? The last ones' histograms against the reference's.

The slot that infers a batch only leaves its logits; once a second they are
counted, and nothing of an image is left but the counts. Distances and their
limits: docs/drift.md.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from model_store.reference import FEATURES, Bins, Counts, Feature, Reference, signals
from model_store.store import StoreError
from model_store.stored_model import StoredModel
from service.inference.outputs import OutputName
from service.inference.postprocess import Floats
from service.settings import DriftSettings

# A window is forgotten in so many parts, so that one image's numbers need not be kept to be taken back.
BLOCKS: Final = 20
# A dimension that hardly varied in the reference would make any change a large one.
_LEAST_SPREAD: Final = 0.01
_HEADER_BYTES: Final = 4096

Doubles = npt.NDArray[np.float64]
_Batch = tuple[Floats, Floats | None]


def population_stability_index(reference: npt.ArrayLike, window: npt.ArrayLike) -> float:
    """Sum over bins of (p - q) ln(p / q) of two histograms of counts; 0 where they are alike, never below.

    A bin that one of them has not counts as half an image there; one that neither has, not at all.
    """
    (p, p_total), (q, q_total) = (_counts(counts) for counts in (reference, window))
    there = (p + q) > 0
    p, q = (np.maximum(counts[there], 0.5) / total for counts, total in ((p, p_total), (q, q_total)))
    return float(((p - q) * np.log(p / q)).sum())


def by_chance(reference: npt.ArrayLike, window: npt.ArrayLike) -> float:
    """What the index is in the mean where both histograms are drawn from the same images.

    The index times n m / (n + m) is then about chi-squared distributed with a degree of freedom less than there are
    bins (Yurdakul and Naranjo, "Statistical Properties of the Population Stability Index", 2020).
    """
    (p, p_total), (q, q_total) = (_counts(counts) for counts in (reference, window))
    bins = int(((p + q) > 0).sum())
    return max(0, bins - 1) * (1 / p_total + 1 / q_total)


def _counts(counts: npt.ArrayLike) -> tuple[Doubles, float]:
    found = np.asarray(counts, np.float64)
    return found, float(found.sum())


def embedding_distance(mean: Doubles, reference: Floats) -> float:
    """Root mean square, over dimensions, of ``mean``'s distance from the reference's in its standard deviations.

    ``reference`` is ``[2, D]``: means and deviations. 0 where no dimension of it varied.
    """
    expected, spread = reference.astype(np.float64)
    typical = math.sqrt(float((spread**2).mean()))
    if not typical:
        return 0.0
    return math.sqrt(float((((mean - expected) / np.maximum(spread, _LEAST_SPREAD * typical)) ** 2).mean()))


@dataclass(frozen=True, slots=True)
class Distances:
    """How far the window is from the reference; None where it holds too little to say.

    images -- in the window.
    psi    -- the population stability index of each feature, less what chance makes of it.
    """

    images: int = 0
    psi: Mapping[Feature, float] | None = None
    embedding: float | None = None


@dataclass(slots=True)
class _Block:
    """A part of the window; ``embeddings`` is their sum."""

    images: int = 0
    counts: dict[Feature, Counts] = field(default_factory=dict)
    embeddings: Doubles | float = 0.0

    def add(self, counts: Mapping[Feature, Counts], embeddings: Floats | None) -> None:
        for feature, more in counts.items():
            self.counts[feature] = self.counts[feature] + more if feature in self.counts else more
        self.images += int(counts["classes"].sum())
        if embeddings is not None:
            self.embeddings = self.embeddings + embeddings.sum(axis=0, dtype=np.float64)


class Drift:
    """One model version's window in one worker: the last images, to a twentieth.

    ``wanted`` and ``saw`` are for slots' threads, ``measure`` for any one other.
    """

    def __init__(self, reference: Reference, embedding: Floats | None, classes: int, settings: DriftSettings) -> None:
        self.reference = reference
        self.found = Distances()
        self._embedding = embedding
        self._bins = Bins.of(reference, classes)
        self._settings = settings
        self._lock = threading.Lock()
        self._pending: list[_Batch] = []
        self._pending_images = 0
        self._blocks: deque[_Block] = deque([_Block()])

    @classmethod
    def of(cls, stored: StoredModel, settings: DriftSettings) -> Drift | None:
        """None where the model has no reference or the settings want no window; ``StoreError`` where it is broken."""
        reference = stored.manifest.reference
        if reference is None or not settings.drift_window:
            return None
        return cls(reference, _load_embedding(stored), stored.manifest.outputs.classes, settings)

    def wanted(self, outputs: tuple[OutputName, ...]) -> tuple[OutputName, ...]:
        """What to ask the graph for, where ``outputs`` are what a batch's images want."""
        if self._embedding is None or "embedding" in outputs or self._full:
            return outputs
        return (*outputs, "embedding")

    def saw(self, found: Mapping[OutputName, Floats], sound: npt.NDArray[np.bool_]) -> None:
        """A batch's outputs, of which the ``sound`` rows are numbers.

        Of more images than the window holds between two measurements, the first are looked at.
        """
        logits, embedding = found["logits"], None if self._embedding is None else found.get("embedding")
        if self._full or (self._embedding is not None and embedding is None):
            return
        if not sound.all():
            logits, embedding = logits[sound], None if embedding is None else embedding[sound]
        with self._lock:
            self._pending.append((logits, embedding))
            self._pending_images += len(logits)

    @property
    def _full(self) -> bool:
        """Whether as many images wait to be counted as the window holds."""
        return self._pending_images >= self._settings.drift_window

    def measure(self) -> Distances:
        """Count what came since the last time, and say how far the window is from the reference."""
        with self._lock:
            pending, self._pending, self._pending_images = self._pending, [], 0
        if pending:
            self._count(pending)
            self.found = self._distances()
        return self.found

    def _count(self, pending: list[_Batch]) -> None:
        whole = np.concatenate([logits for logits, _ in pending])
        vectors = [embedding for _, embedding in pending if embedding is not None]
        embeddings = np.concatenate(vectors) if vectors else None
        size = math.ceil(self._settings.drift_window / BLOCKS)
        for start in range(0, len(whole), size):
            part = slice(start, start + size)
            if self._blocks[-1].images >= size:
                self._blocks.append(_Block())
            counts = self._bins.count(signals(whole[part], self.reference.temperature))
            self._blocks[-1].add(counts, None if embeddings is None else embeddings[part])
        images = sum(block.images for block in self._blocks)
        while images - self._blocks[0].images >= self._settings.drift_window:
            images -= self._blocks.popleft().images

    def _distances(self) -> Distances:
        images = sum(block.images for block in self._blocks)
        if images < self._settings.drift_min_images:
            return Distances(images)
        psi = {}
        for feature in FEATURES:
            expected = np.asarray(self.reference.counts(feature))
            window = np.sum([block.counts[feature] for block in self._blocks if block.counts], axis=0)
            chance = by_chance(expected, window)
            psi[feature] = max(0.0, population_stability_index(expected, window) - chance)
        return Distances(images, psi, self._embedding_distance(images))

    def _embedding_distance(self, images: int) -> float | None:
        if self._embedding is None:
            return None
        total = sum((block.embeddings for block in self._blocks), np.zeros(self._embedding.shape[1]))
        return embedding_distance(np.asarray(total / images), self._embedding)


def _load_embedding(stored: StoredModel) -> Floats | None:
    """The reference's means and deviations, float32 ``[2, D]``; ``StoreError`` where the file is not that."""
    reference, dimensions = stored.manifest.reference, stored.manifest.outputs.embedding
    if reference is None or reference.embedding is None or dimensions is None:
        return None
    path = stored.path(reference.embedding)
    problem = "is not two rows of finite float32 numbers, each as long as the model's embedding"
    try:
        if path.stat().st_size > _HEADER_BYTES + 2 * 4 * dimensions:
            raise StoreError(f"{path}: {problem}")
        found = np.load(path)  # which refuses pickled objects
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: the reference's embedding cannot be read: {error}") from error
    if (
        not isinstance(found, np.ndarray)
        or found.dtype != np.float32
        or found.shape != (2, dimensions)
        or not np.isfinite(found).all()
        or found[1].min() < 0
    ):
        raise StoreError(f"{path}: {problem}")
    return found
