"""Whether there is an NVIDIA GPU, as the driver tells (NVML): asked before CUDA, by serving and by the gate alike."""

from __future__ import annotations


class GpuUnavailable(Exception):
    """There is none here; the message says why in one line."""


def check_gpu() -> None:
    """``GpuUnavailable`` unless the driver has an NVIDIA GPU."""
    try:
        import pynvml
    except ImportError as error:
        raise GpuUnavailable("nvidia-ml-py is not installed") from error
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        raise GpuUnavailable(f"no NVIDIA driver: {error}") from error
    if not count:
        raise GpuUnavailable("no NVIDIA GPU")
