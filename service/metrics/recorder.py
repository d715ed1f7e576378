"""What is counted and measured, and the page that shows it.

With ``PROMETHEUS_MULTIPROC_DIR`` set before the first import of
prometheus_client, values lie in files that all workers share, and the page is
right whichever worker answers.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service.errors import CLIENT_GONE
from service.jobs.record import STATES, State
from service.metrics.definitions import (
    BATCH_IMAGES,
    CONFIDENCE,
    CPU_SECONDS,
    DECODE_FAILURES,
    DEFINITIONS,
    GATE_IMAGES,
    IMAGES,
    JOB_IMAGES,
    JOBS,
    LAST_SUCCESS,
    LOG_DROPPED,
    MODEL_INFO,
    MODEL_LOAD_SECONDS,
    MODEL_LOADS,
    OPEN_FILES,
    PREDICTIONS,
    QUEUE_IMAGES,
    QUEUE_OLDEST,
    REJECTED,
    REQUEST_BYTES,
    REQUEST_SECONDS,
    REQUESTS,
    RESIDENT_BYTES,
    SHADOW_DIFFERENCE,
    SHADOW_IMAGES,
    SHADOW_SECONDS,
    SLOTS,
    SLOTS_BUSY,
    STAGE_SECONDS,
    STAGES,
    START_TIME,
    STORE_REACHABLE,
    WORKERS_READY,
    Definition,
)
from service.metrics.drift import DriftGauges
from service.metrics.files import forget_dead_workers, reserve
from service.metrics.gpu import GpuGauges
from service.metrics.model import ModelMetrics
from service.metrics.predictions import PredictionTally
from service.metrics.served import ServedOnly
from service.metrics.tally import CounterTally, HistogramTally, Tallies
from service.metrics.usage import usage_here

logger = logging.getLogger(__name__)

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_REJECTIONS: Final = {
    408: "slow_client",
    413: "too_large",
    429: "queue_full",
    CLIENT_GONE: "cancelled",
    504: "deadline",
}
_REASONS: Final = frozenset(("unauthorized", "key_rate", "key_concurrency", "too_many_jobs"))


class Metrics:
    """The service's metrics; one instance a process. Counts show once ``flush`` or ``page`` handed them over."""

    def __init__(self, shared_dir: Path | None) -> None:
        self._shared_dir = shared_dir if shared_dir is not None and reserve(shared_dir) else None
        self._registry = CollectorRegistry()
        self._tallies = Tallies()
        self._requests = self._counter(REQUESTS)
        self._request_seconds = self._histogram(REQUEST_SECONDS)
        rejected = self._counter(REJECTED)
        self._rejections = functools.cache(lambda reason: self._tallies.counter(rejected.labels(reason)))
        self._request_bytes = self._tallies.counter(self._counter(REQUEST_BYTES))
        self._images = self._counter(IMAGES)
        failures = self._counter(DECODE_FAILURES)
        self._decode_failures = functools.cache(lambda *labels: self._tallies.counter(failures.labels(*labels)))
        stage_seconds = self._histogram(STAGE_SECONDS)
        self._stages = {stage: self._tallies.histogram(stage_seconds.labels(stage)) for stage in STAGES}
        self._batch_images = self._histogram(BATCH_IMAGES)
        self._predictions = self._counter(PREDICTIONS)
        self._confidence = self._histogram(CONFIDENCE)
        self._job_images = self._counter(JOB_IMAGES)
        self._cpu_seconds = self._counter(CPU_SECONDS)
        self._cpu_seconds_told = 0.0
        self._log_dropped = self._counter(LOG_DROPPED)
        self._log_dropped_told = 0
        gauges = [definition for definition in DEFINITIONS if definition.kind == "gauge"]
        self._gauges = {definition: self._gauge(definition) for definition in gauges}
        self.drift = DriftGauges(self._gauges)
        self.gpus = GpuGauges(self._gauges)
        self._answers = functools.cache(self._bound)  # as few as there are routes, models and statuses
        self._models: dict[ModelMetrics, None] = {}  # some come in the event loop while another thread flushes
        self._served: dict[tuple[str, str], tuple[str, ...]] = {}  # labels of MODEL_INFO
        self._loads = self._counter(MODEL_LOADS)
        self._shadow_images = self._counter(SHADOW_IMAGES)
        self._shadow_difference = self._histogram(SHADOW_DIFFERENCE)
        self._shadow_seconds = self._histogram(SHADOW_SECONDS)
        self._last_success = 0.0
        self._was_ready = False
        self._gauges[START_TIME].set(time.time())

    def _counter(self, of: Definition) -> Counter:
        return Counter(of.name, of.meaning, of.labels, registry=self._registry)

    def _histogram(self, of: Definition) -> Histogram:
        return Histogram(of.name, of.meaning, of.labels, buckets=of.buckets, registry=self._registry)

    def _gauge(self, of: Definition) -> Gauge:
        return Gauge(of.name, of.meaning, of.labels, multiprocess_mode=of.mode, registry=self._registry)

    def answered(self, route: str, model: str, version: str, status: int, seconds: float, error: str = "") -> None:
        """``error`` is the code, of which some have a reason of their own."""
        requests, request_seconds = self._answers(route, model, version, status)
        requests.inc()
        request_seconds.observe(seconds)
        if status == 503:
            self._rejections("draining" if self._was_ready else "loading").inc()
        elif (reason := error if error in _REASONS else _REJECTIONS.get(status)) is not None:
            self._rejections(reason).inc()

    def _bound(self, route: str, model: str, version: str, status: int) -> tuple[CounterTally, HistogramTally]:
        """The metrics with these labels, bound once, as binding costs more than counting."""
        requests = self._requests.labels(route, model, version, str(status))
        request_seconds = self._request_seconds.labels(route, model, str(status))
        return self._tallies.counter(requests), self._tallies.histogram(request_seconds)

    def rejected(self, reason: str) -> None:
        """Count what was ended or refused before it was a request; those that are, ``answered`` counts."""
        self._rejections(reason).inc()

    def received(self, body_bytes: int) -> None:
        self._request_bytes.inc(body_bytes)

    def stage(self, name: str, seconds: float) -> None:
        self._stages[name].observe(seconds)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = perf_counter()
        yield
        self.stage(stage, perf_counter() - began)

    def decode_failed(self, kind: str | None, code: str) -> None:
        self._decode_failures(kind or "none", code).inc()

    def jobs(self, counts: Mapping[State, int]) -> None:
        """How many jobs lie on disk, by state: all workers see the same ones, and the last to look is right."""
        for state in STATES:
            self._gauges[JOBS].labels(state).set(counts.get(state, 0))

    def job_images(self, done: int, failed: int) -> None:
        self._job_images.labels("done").inc(done)
        self._job_images.labels("failed").inc(failed)

    def model_loaded(
        self,
        model: str,
        version: str,
        *,
        provider: str,
        precision: str,
        requested: str,
        passed_over: Sequence[str],
        sha256: str,
        seconds: float,
    ) -> None:
        self.model_gone(model, version)
        labels = (model, version, provider, precision, requested, ",".join(passed_over), sha256)
        self._served[model, version] = labels
        self._gauges[MODEL_INFO].labels(*labels).set(1)
        self._gauges[MODEL_LOAD_SECONDS].labels(model, version).set(seconds)

    def model_gone(self, model: str, version: str) -> None:
        """It is served no more: the page shows none of its gauges."""
        if (labels := self._served.pop((model, version), None)) is not None:
            self._gauges[MODEL_INFO].labels(*labels).set(0)

    def loads(self, model: str, outcome: Literal["loaded", "failed"]) -> None:
        self._loads.labels(model, outcome).inc()

    def shadowed(self, model: str, outcome: Literal["agreed", "disagreed", "dropped", "failed"]) -> None:
        self._shadow_images.labels(model, outcome).inc()

    def compared(self, model: str, agreed: bool, difference: float, stable_s: float, canary_s: float) -> None:
        """One image that the stable version and the canary both computed."""
        self.shadowed(model, "agreed" if agreed else "disagreed")
        self._shadow_difference.labels(model).observe(difference)
        self._shadow_seconds.labels(model, "stable").observe(stable_s)
        self._shadow_seconds.labels(model, "canary").observe(canary_s)

    def ready(self, ready: bool) -> None:
        self._was_ready |= ready
        self._gauges[WORKERS_READY].set(int(ready))

    def for_model(
        self, model: str, version: str, classes: Sequence[str] = (), temperature: float = 1.0
    ) -> ModelMetrics:
        """``classes`` -- what each is counted as; ``temperature`` -- of the logits, for the confidence."""
        labels = (model, version)
        made = ModelMetrics(
            self._tallies.counter(self._images.labels(*labels)),
            self._tallies.histogram(self._batch_images.labels(*labels)),
            self._tallies.add(PredictionTally(self._predictions, self._confidence, labels, classes, temperature)),
            self._stages["queue"],
            self._gauges[QUEUE_IMAGES].labels(*labels),
            self._gauges[QUEUE_OLDEST].labels(*labels),
        )
        self._models[made] = None
        return made

    def store_reachable(self, store: str, reachable: bool) -> None:
        self._gauges[STORE_REACHABLE].labels(store).set(reachable)

    def sample(self, *, slots: int, slots_busy: int, images_held: int) -> None:
        """What is looked at from time to time, not counted; and all counts are handed over."""
        self._gauges[SLOTS].set(slots)
        self._gauges[SLOTS_BUSY].set(slots_busy)
        self._gauges[GATE_IMAGES].set(images_held)
        usage = usage_here()
        self._gauges[RESIDENT_BYTES].set(usage.resident_bytes)
        self._gauges[OPEN_FILES].set(usage.open_files)
        self._cpu_seconds.inc(max(0.0, usage.cpu_seconds - self._cpu_seconds_told))
        self._cpu_seconds_told = usage.cpu_seconds
        self._log_dropped.inc(usage.log_lines_dropped - self._log_dropped_told)
        self._log_dropped_told = usage.log_lines_dropped
        self.flush()

    def flush(self) -> None:
        """Hand over what was counted; a full disk loses some of it, and nothing else."""
        try:
            models = [*self._models]
            gone = [
                model for model in models if model.closed
            ]  # what they counted is handed over now, and no more comes
            self._tallies.flush()
            for model in models:
                model.flush()
            self._last_success = max([self._last_success, *(model.last_s for model in models)])
            if self._last_success:
                self._gauges[LAST_SUCCESS].set(self._last_success)
            for model in gone:
                self._tallies.forget(model.tallies)
                self._models.pop(model, None)
        except OSError:
            logger.warning("metrics could not be written", exc_info=True)

    def page(self) -> bytes:
        """All metrics of all workers in Prometheus' text format."""
        self.flush()
        if self._shared_dir is None:
            return generate_latest(ServedOnly(self._registry))
        forget_dead_workers(self._shared_dir)
        shared = multiprocess.MultiProcessCollector(None, path=str(self._shared_dir))  # type: ignore[no-untyped-call]
        return generate_latest(ServedOnly(shared))
