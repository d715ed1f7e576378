"""CUDA, through onnxruntime-gpu.

Options: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#configuration-options
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import onnxruntime as ort

from service.providers.base import (
    Arithmetic,
    ExecutionProvider,
    Model,
    ProviderUnavailable,
    Share,
    refuse_bf16,
    session_options,
)
from service.providers.gpu import GpuSession, check_gpu, forbid_tf32
from service.settings import ProviderSettings

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
    session = ort.InferenceSession(model, session_options(1), providers=[(NAME, options), "CPUExecutionProvider"])
    # Where CUDA cannot be started, ONNX Runtime goes on with the CPU and only logs it.
    if session.get_providers()[0] != NAME:
        raise ProviderUnavailable("ONNX Runtime could not start CUDA")
    return session


def _open(model: Model, share: Share, precision: Arithmetic, options: ProviderSettings) -> GpuSession:
    refuse_bf16(precision)
    forbid_tf32()
    ort.preload_dlls()  # CUDA and cuDNN from their Python packages
    device, slots = ("cuda", options.gpu_device), share.slots("cuda")
    if options.cuda_graphs:
        captured = cuda_options(options) | {"enable_cuda_graph": "1"}
        return GpuSession([_start(model, captured) for _ in range(slots)], device, graphs=True)
    return GpuSession([_start(model, cuda_options(options))] * slots, device)


CUDA = ExecutionProvider("cuda", partial(check_gpu, NAME), _open)
