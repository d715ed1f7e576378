"""NVIDIA's GPUs: whether there is one, and a session there, for serving and for the exporter's gate alike.

onnxruntime is imported when it is asked for: who only reads the store needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_store.manifest import Precision
from model_store.onnx_session import open_onnx


class GpuUnavailable(Exception):
    """It cannot be had here; the message says why in one line."""


def driver() -> tuple[Any, int]:
    """What the driver tells by (NVML) and how many GPUs it has; ``GpuUnavailable`` where there is no driver."""
    try:
        import pynvml
    except ImportError as error:
        raise GpuUnavailable("nvidia-ml-py is not installed") from error
    try:
        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        raise GpuUnavailable(f"no NVIDIA driver: {error}") from error


def check_gpu() -> None:
    """``GpuUnavailable`` unless the driver has an NVIDIA GPU; asked before CUDA is."""
    _, count = driver()
    if not count:
        raise GpuUnavailable("no NVIDIA GPU")


def layout(precision: Precision) -> dict[str, str]:
    """CUDA's options for a file of ``precision``: tensor cores want the channels last, and fp32 does without them."""
    return {"prefer_nhwc": "1"} if precision == "fp16" else {}


def open_session(model: Path | bytes, options: Any, providers: Sequence[Any], called: str) -> Any:
    """An ``InferenceSession`` whose first provider runs; ``GpuUnavailable`` says ``called`` where it cannot."""
    import onnxruntime as ort

    ort.set_default_logger_severity(3)  # its warnings are about plugins
    session = open_onnx(model, options, providers)
    if session.get_providers()[0] != providers[0][0]:  # its libraries could not be loaded, which it only logs
        raise GpuUnavailable(f"ONNX Runtime could not start {called}; are its libraries where the loader looks?")
    # From here on cuDNN calls each way to compute that it tries in vain an error; what fails is raised anyway.
    ort.set_default_logger_severity(4)
    return session
