"""Every metric: its name, labels and buckets, and the page that shows them.

With ``PROMETHEUS_MULTIPROC_DIR`` set before the first import of
prometheus_client, values lie in files that all workers share, and the page is
right whichever worker answers. Labels are bounded: routes and models are known
names, never what a client typed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.workers import alive

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

# From 100 microseconds to 10 seconds: fits a stage of the smallest net and a request to the largest.
_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_DIFFERENCES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_IMAGES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

STAGES: Final = ("read", "decode", "queue", "infer", "post")


class Metrics:
    """The service's metrics; one instance a process."""

    def __init__(self, shared_dir: Path | None) -> None:
        self._shared_dir = shared_dir
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "resnet_requests_total",
            "Requests answered, by route, model (empty where none was reached) and HTTP status.",
            ["route", "model", "code"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "resnet_request_seconds",
            "Time from a request's first byte to its answer.",
            ["route", "model", "code"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._answers = functools.cache(self._bound)  # as few as there are routes, models and statuses
        stage_seconds = Histogram(
            "resnet_stage_seconds",
            "Time in each stage: read (a request's body), decode, queue and post (an image), infer (a batch).",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = {stage: stage_seconds.labels(stage) for stage in STAGES}
        self._batch_images = Histogram(
            "resnet_batch_images", "Images in a batch.", ["model", "version"], buckets=_IMAGES, registry=self._registry
        )
        self._queue_images = Gauge(
            "resnet_queue_images",
            "Images waiting for a slot.",
            ["model", "version"],
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._model_info = Gauge(
            "resnet_model_info",
            "1 for each model served, with the execution provider and precision it runs on, the provider asked for, "
            "and those that were tried before it.",
            ["model", "version", "provider", "precision", "requested", "passed_over"],
            multiprocess_mode="livemax",
            registry=self._registry,
        )
        self._info: dict[tuple[str, str], tuple[str, ...]] = {}  # labels of the models served
        self._loads = Counter(
            "resnet_model_loads_total",
            "Model versions that were loaded while the service ran or at its start, and those that could not be.",
            ["model", "outcome"],
            registry=self._registry,
        )
        self._shadow_images = Counter(
            "resnet_shadow_images_total",
            "Copies for a model's canary: agreed or disagreed with the stable version's best class, dropped as no slot "
            "was idle, or failed.",
            ["model", "outcome"],
            registry=self._registry,
        )
        self._shadow_difference = Histogram(
            "resnet_shadow_probability_difference",
            "How far the canary's probability of the stable version's best class is from that version's.",
            ["model"],
            buckets=_DIFFERENCES,
            registry=self._registry,
        )
        self._shadow_seconds = Histogram(
            "resnet_shadow_seconds",
            "From submission to answer of images that both computed, by who did: stable or canary.",
            ["model", "by"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._ready = Gauge(
            "resnet_workers_ready",
            "Workers whose models are loaded and warm.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )

    def answered(self, route: str, model: str, status: int, seconds: float) -> None:
        requests, request_seconds = self._answers(route, model, status)
        requests.inc()
        request_seconds.observe(seconds)

    def _bound(self, route: str, model: str, status: int) -> tuple[Counter, Histogram]:
        """The metrics with these labels, bound once, as binding costs more than counting."""
        labels = (route, model, str(status))
        return self._requests.labels(*labels), self._request_seconds.labels(*labels)

    def stage(self, name: str, seconds: float) -> None:
        self._stages[name].observe(seconds)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = perf_counter()
        yield
        self.stage(stage, perf_counter() - began)

    def model_loaded(
        self, model: str, version: str, *, provider: str, precision: str, requested: str, passed_over: Sequence[str]
    ) -> None:
        self.model_gone(model, version)
        labels = (model, version, provider, precision, requested, ",".join(passed_over))
        self._info[model, version] = labels
        self._model_info.labels(*labels).set(1)

    def model_gone(self, model: str, version: str) -> None:
        """Show it as served no more."""
        if (labels := self._info.pop((model, version), None)) is not None:
            # Values that workers share cannot be taken back; ``page`` leaves out those of 0.
            self._model_info.labels(*labels).set(0)

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
        self._ready.set(int(ready))

    def for_model(self, model: str, version: str) -> ModelMetrics:
        return ModelMetrics(
            self._queue_images.labels(model, version), self._batch_images.labels(model, version), self._stages["queue"]
        )

    def page(self) -> bytes:
        """All metrics of all workers in Prometheus' text format."""
        if self._shared_dir is None:
            return generate_latest(_Served(self._registry))
        forget_dead_workers(self._shared_dir)
        shared = multiprocess.MultiProcessCollector(None, path=str(self._shared_dir))  # type: ignore[no-untyped-call]
        return generate_latest(_Served(shared))


class _Served(Collector):
    """``metrics`` without the models that no worker serves any more."""

    def __init__(self, metrics: Collector) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics.collect():
            if metric.name == "resnet_model_info":
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


class ModelMetrics:
    """What one model's batcher reports."""

    def __init__(self, queue_images: Gauge, batch_images: Histogram, queue_seconds: Histogram) -> None:
        self._queue_images = queue_images
        self._batch_images = batch_images
        self._queue_seconds = queue_seconds

    def queued(self, images: int) -> None:
        self._queue_images.set(images)

    def dispatched(self, waited_s: Sequence[float]) -> None:
        if waited_s:
            self._batch_images.observe(len(waited_s))
        for seconds in waited_s:
            self._queue_seconds.observe(seconds)


def forget_dead_workers(shared_dir: Path) -> None:
    """Drop the gauges of processes that are gone, so that a killed worker's last values do not stay."""
    for file in shared_dir.glob("gauge_live*_*.db"):
        found = re.search(r"_(\d+)\.db$", file.name)
        if found and not alive(int(found[1])):
            file.unlink(missing_ok=True)
