"""What a model says of the images that come: how often each class is the best, and how sure it is of it.

A slot only leaves its batch's logits. They are counted some at a time, as numpy's calls cost more than their work on
one image. Drift (service/inference/drift.py) reads logits for itself: at its reference's temperature, and not of all
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Final

import numpy as np
from prometheus_client import Counter, Histogram

from model_store.reference import MOST_CLASSES
from service.inference.postprocess import Floats
from service.metrics.tally import HistogramTally

OTHER: Final = "other"
_TOGETHER: Final = 32  # images; all that is ever kept of them is so many logits
_MOST_CHARACTERS: Final = 64


def counted_as(labels: Sequence[str], top_classes: Sequence[int] | None) -> list[str]:
    """What each class is counted as: its label where there are few, else those of ``top_classes`` alone have a name.

    ``top_classes`` -- a reference's, the most frequent first; None where the model has none.
    """
    if len(labels) <= MOST_CLASSES:
        return [label[:_MOST_CHARACTERS] for label in labels]
    named = set([] if top_classes is None else top_classes[:MOST_CLASSES])
    return [label[:_MOST_CHARACTERS] if index in named else OTHER for index, label in enumerate(labels)]


class PredictionTally:
    """Of one model version. Safe in many threads.

    labels -- the model's name and version.
    names  -- what each class is counted as.
    """

    def __init__(
        self, classes: Counter, confidence: Histogram, labels: tuple[str, str], names: Sequence[str], temperature: float
    ) -> None:
        self._classes = classes
        self._labels = labels
        self._names = names
        self._confidence = HistogramTally(confidence.labels(*labels))
        self._temperature = np.float32(temperature)
        self._lock = Lock()
        self._pending: list[Floats] = []
        self._images = 0
        self._counts = np.zeros(len(names), np.int64)

    def saw(self, logits: Floats) -> None:
        """Finite ``logits`` of a batch, ``[n, classes]``, which nobody changes any more."""
        with self._lock:
            self._pending.append(logits)
            self._images += len(logits)
            if self._images >= _TOGETHER:
                self._count()

    def _count(self) -> None:
        """Forget the logits for their counts; the lock is held."""
        logits = np.concatenate(self._pending)
        self._pending, self._images = [], 0
        best = logits.max(axis=1, keepdims=True)
        confidence = 1 / np.exp((logits - best) / self._temperature).sum(axis=1)
        self._counts += np.bincount(logits.argmax(axis=1), minlength=len(self._counts))
        self._confidence.observe_all(confidence)

    def flush(self) -> None:
        with self._lock:
            if self._pending:
                self._count()
            counts, self._counts = self._counts, np.zeros_like(self._counts)
        self._confidence.flush()
        for index in np.flatnonzero(counts).tolist():
            self._classes.labels(*self._labels, self._names[index]).inc(int(counts[index]))
