from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from service.metrics import Metrics


class FakeNvml:
    """nvidia-ml-py with GPUs of 80 GB; ``silent`` are the questions that the driver has no answer to."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, gpus: int = 2, there: bool = True) -> None:
        self._gpus = gpus
        self._there = there
        self.opened = 0
        self.silent: set[str] = set()

    def nvmlInit(self) -> None:  # noqa: N802
        self.opened += 1
        if not self._there:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self._gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        if "memory" in self.silent:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(used=(handle + 1) * 10**9, total=80 * 10**9)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        if "utilisation" in self.silent:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(gpu=25 * (handle + 1), memory=1)


def lines(metrics: Metrics) -> list[str]:
    return sorted(line for line in metrics.page().decode().splitlines() if line.startswith("resnet_gpu"))


def test_every_gpu_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    metrics = Metrics(None)
    for _ in range(2):
        metrics.gpus.sample()
    assert lines(metrics) == [
        'resnet_gpu_memory_bytes{gpu="0"} 8e+10',
        'resnet_gpu_memory_bytes{gpu="1"} 8e+10',
        'resnet_gpu_memory_used_bytes{gpu="0"} 1e+09',
        'resnet_gpu_memory_used_bytes{gpu="1"} 2e+09',
        'resnet_gpu_utilisation_ratio{gpu="0"} 0.25',
        'resnet_gpu_utilisation_ratio{gpu="1"} 0.5',
    ]
    assert nvml.opened == 1


def test_what_the_driver_does_not_tell_has_no_series(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(gpus=1)
    nvml.silent = {"utilisation"}
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    metrics = Metrics(None)
    metrics.gpus.sample()
    assert [line.partition("{")[0] for line in lines(metrics)] == [
        "resnet_gpu_memory_bytes",
        "resnet_gpu_memory_used_bytes",
    ]
    nvml.silent = {"memory"}  # the last values of a GPU that is lost do not stay
    metrics.gpus.sample()
    assert lines(metrics) == ['resnet_gpu_utilisation_ratio{gpu="0"} 0.25']


@pytest.mark.parametrize("nvml", [None, FakeNvml(there=False), FakeNvml(gpus=0)])
def test_without_nvml_there_are_no_series(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, nvml: FakeNvml | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    metrics = Metrics(None)
    with caplog.at_level(logging.WARNING, "service"):
        for _ in range(2):
            metrics.gpus.sample()
    assert lines(metrics) == []
    assert len(caplog.records) == (0 if nvml is not None and nvml._there else 1)
