"""What is counted of one model's batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from time import perf_counter

from prometheus_client import Gauge

from service.inference.postprocess import Floats
from service.metrics.predictions import PredictionTally
from service.metrics.tally import CounterTally, HistogramTally, Tally


class ModelMetrics:
    """What one model's batcher and pipeline report."""

    def __init__(
        self,
        images: CounterTally,
        batch_images: HistogramTally,
        predictions: PredictionTally,
        queue_seconds: HistogramTally,
        queue_images: Gauge,
        queue_oldest: Gauge,
    ) -> None:
        self._images = images
        self._batch_images = batch_images
        self._predictions = predictions
        self._queue_seconds = queue_seconds
        self._queue_images = queue_images
        self._queue_oldest = queue_oldest
        self._waiting = 0
        self._oldest_s: float | None = None
        self.last_s = 0.0
        self.closed = False

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """Those of this model alone."""
        return self._images, self._batch_images, self._predictions

    def close(self) -> None:
        """Nothing more will come; what was counted is handed over with the next flush."""
        self._waiting, self._oldest_s, self.closed = 0, None, True

    def queued(self, images: int, oldest_s: float | None = None) -> None:
        """``images`` wait, the first since ``oldest_s`` of ``time.perf_counter``."""
        self._waiting, self._oldest_s = images, oldest_s

    def dispatched(self, waited_s: Sequence[float]) -> None:
        if waited_s:
            self._batch_images.observe(len(waited_s))
        for seconds in waited_s:
            self._queue_seconds.observe(seconds)

    def inferred(self, images: int) -> None:
        self._images.inc(images)
        self.last_s = time.time()

    def predicted(self, logits: Floats) -> None:
        """Finite ``logits`` of a batch, ``[n, classes]``, which nobody changes any more."""
        self._predictions.saw(logits)

    def flush(self) -> None:
        oldest_s = self._oldest_s
        self._queue_images.set(self._waiting)
        self._queue_oldest.set(0.0 if oldest_s is None else max(0.0, perf_counter() - oldest_s))
