"""CUDA, through onnxruntime-gpu.

Options: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#configuration-options
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

import onnxruntime as ort

from model_store import nvidia
from service.providers.base import (
    Arithmetic,
    ExecutionProvider,
    Model,
    Share,
    refuse_bf16,
)
from service.providers.gpu import GpuSession, check_gpu, forbid_tf32, start, tried
from service.settings import ProviderSettings

logger = logging.getLogger(__name__)

NAME: Final = "CUDAExecutionProvider"

_ARENA: Final = {"next_power_of_two": "kNextPowerOfTwo", "same_as_requested": "kSameAsRequested"}


def cuda_options(options: ProviderSettings) -> dict[str, str]:
    """The provider's options, without graphs: TensorRT takes the same for the parts that it leaves to CUDA."""
    chosen = {
        "device_id": str(options.gpu_device),
        "arena_extend_strategy": _ARENA[options.gpu_arena],
        "cudnn_conv_algo_search": options.cudnn_search.upper(),
        "use_tf32": "0",  # TF32 would round fp32 inputs to 10 bits of mantissa
    }
    if options.gpu_memory_bytes is not None:
        chosen["gpu_mem_limit"] = str(options.gpu_memory_bytes)
    return chosen


def _start(model: Model, options: dict[str, str]) -> Any:
    return start(model, [(NAME, options), "CPUExecutionProvider"], "CUDA")


def _open(model: Model, share: Share, precision: Arithmetic, options: ProviderSettings) -> GpuSession:
    refuse_bf16(precision)
    forbid_tf32()
    ort.preload_dlls()  # CUDA and cuDNN from their Python packages
    device, slots = ("cuda", options.gpu_device), share.slots("cuda")
    chosen = cuda_options(options) | nvidia.layout(precision)
    why = None
    if options.cuda_graphs:
        captured = chosen | {"enable_cuda_graph": "1"}
        try:
            return tried(GpuSession([_start(model, captured) for _ in range(slots)], device, graphs=True))
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises classes of its own, without a common base
            why = str(error)
    # Behind ``except``, where the error would keep the failed sessions' memory.
    session = tried(GpuSession([_start(model, chosen)] * slots, device))
    if why is not None:  # it was the graph, then
        logger.warning("CUDA graphs are not used, and every change of batch size is slow: %s", why)
    return session


CUDA = ExecutionProvider("cuda", partial(check_gpu, NAME), _open)
