"""Memory and utilisation of NVIDIA's GPUs, as the driver tells them (NVML).

Every GPU that the driver shows is looked at, whoever uses it: a neighbour's work slows ours. Without NVML, or where it
does not tell, there are no series.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client import Gauge

from model_store.nvidia import GpuUnavailable, driver
from service.metrics.definitions import GPU_MEMORY, GPU_MEMORY_USED, GPU_UTILISATION, Definition

logger = logging.getLogger(__name__)

UNKNOWN: Final = -1.0  # of a gauge that was there once; the page leaves it out (service/metrics/served.py)
_MOST_GPUS: Final = 64


class GpuGauges:
    """For one thread at a time; a call takes as long as the driver likes, so it is none for the event loop."""

    def __init__(self, gauges: Mapping[Definition, Gauge]) -> None:
        self._used, self._memory, self._utilisation = (
            gauges[of] for of in (GPU_MEMORY_USED, GPU_MEMORY, GPU_UTILISATION)
        )
        self._nvml: Any = None
        self._handles: list[Any] | None = None
        self._told: set[tuple[Gauge, int]] = set()

    def sample(self) -> None:
        """Look at all GPUs."""
        if self._handles is None:
            self._handles = self._open()
        nvml = self._nvml
        for index, handle in enumerate(self._handles):
            memory = self._asked(nvml.nvmlDeviceGetMemoryInfo, handle)
            self._set(self._used, index, None if memory is None else memory.used)
            self._set(self._memory, index, None if memory is None else memory.total)
            busy = self._asked(nvml.nvmlDeviceGetUtilizationRates, handle)
            self._set(self._utilisation, index, None if busy is None else busy.gpu / 100)

    def _open(self) -> list[Any]:
        try:
            self._nvml, count = driver()
            return [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(min(_MOST_GPUS, count))]
        except GpuUnavailable as reason:
            logger.warning("no metrics of GPUs: %s", reason)
        except self._nvml.NVMLError as error:
            logger.warning("no metrics of GPUs: %s", error)
        return []

    def _asked(self, question: Callable[[Any], Any], handle: Any) -> Any:
        """The driver's answer; None where it has none, as for the utilisation of a part of a GPU (MIG)."""
        try:
            return question(handle)
        except self._nvml.NVMLError:
            return None

    def _set(self, gauge: Gauge, index: int, value: float | None) -> None:
        if value is None and (gauge, index) not in self._told:
            return  # a series that never was is not begun
        self._told.add((gauge, index))
        gauge.labels(str(index)).set(UNKNOWN if value is None else value)
