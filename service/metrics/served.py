"""The page's metrics without the gauges of models that are served no more, or have nothing to say.

prometheus_client cannot take back values in the files that workers share, so a version that is gone has a
``resnet_model_info`` of 0 there. Its counts stay, as counts do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from service.metrics.definitions import (
    DRIFT_EMBEDDING,
    DRIFT_IMAGES,
    DRIFT_PSI,
    GPU_MEMORY,
    GPU_MEMORY_USED,
    GPU_UTILISATION,
    MODEL_INFO,
    MODEL_LOAD_SECONDS,
    QUEUE_IMAGES,
    QUEUE_OLDEST,
)

_DISTANCES: Final = {one.name for one in (DRIFT_PSI, DRIFT_EMBEDDING)}
# Below 0: nothing to say (service/metrics/drift.py, gpu.py).
_MAY_BE_UNKNOWN: Final = _DISTANCES | {one.name for one in (GPU_MEMORY, GPU_MEMORY_USED, GPU_UTILISATION)}
_OF_MODELS: Final = _DISTANCES | {
    one.name for one in (DRIFT_IMAGES, MODEL_INFO, MODEL_LOAD_SECONDS, QUEUE_IMAGES, QUEUE_OLDEST)
}


class ServedOnly(Collector):
    """What ``metrics`` collects, but for what only models that are gone have."""

    def __init__(self, metrics: Collector) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = list(self._metrics.collect())
        told = [sample for metric in metrics if metric.name == MODEL_INFO.name for sample in metric.samples]
        gone = {_model(sample) for sample in told} - {_model(sample) for sample in told if sample.value}
        for metric in metrics:
            if metric.name in _OF_MODELS:
                metric.samples = [sample for sample in metric.samples if _model(sample) not in gone]
            if metric.name == MODEL_INFO.name:
                metric.samples = [sample for sample in metric.samples if sample.value]
            if metric.name in _MAY_BE_UNKNOWN:
                metric.samples = [sample for sample in metric.samples if sample.value >= 0]
            yield metric


def _model(sample: Sample) -> tuple[str, str]:
    return sample.labels["model"], sample.labels["version"]
