"""TensorRT, through onnxruntime-gpu and NVIDIA's libraries, which no Python extra of ours brings.

An engine is built for a GPU, a file and a range of batch sizes, and that takes minutes; ``RESNET_CACHE_DIR`` keeps it.
TF32 is off by an environment variable alone (``forbid_tf32``): ``use_tf32`` reaches only what runs on CUDA.
Options: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html#execution-provider-options
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort

from model_store.onnx_session import open_onnx
from service.providers.base import (
    Arithmetic,
    ExecutionProvider,
    Model,
    Share,
    private_folder,
    refuse_bf16,
    session_options,
)
from service.providers.cuda import NAME as CUDA_NAME
from service.providers.cuda import cuda_options
from service.providers.gpu import GpuSession, check_gpu, forbid_tf32, start, tried
from service.settings import ProviderSettings

NAME: Final = "TensorrtExecutionProvider"


def _open(model: Model, share: Share, precision: Arithmetic, options: ProviderSettings) -> GpuSession:
    refuse_bf16(precision)
    forbid_tf32()
    ort.preload_dlls()
    chosen = {
        "device_id": options.gpu_device,
        "trt_max_workspace_size": options.tensorrt_workspace_bytes,
        "trt_fp16_enable": precision == "fp16",
        "trt_int8_enable": precision == "int8",  # scales come with the file's QuantizeLinear nodes
        **_profile(model, share.max_batch),
        **_caches(model, options.cache_dir),
    }
    # What TensorRT does not take runs on CUDA.
    providers = [(NAME, chosen), (CUDA_NAME, cuda_options(options)), "CPUExecutionProvider"]
    slots = [start(model, providers, "TensorRT")] * share.slots("tensorrt")
    return tried(GpuSession(slots, ("cuda", options.gpu_device)))


def _profile(model: Model, max_batch: int | None) -> dict[str, str]:
    """Batches of 1 to ``max_batch`` in one engine, tuned for the largest, as that is what a busy service forms.

    Without a profile, an engine is built again whenever a larger batch than ever comes.
    """
    if max_batch is None:
        return {}
    reading = session_options(1)
    reading.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (image,) = open_onnx(model, reading, ["CPUExecutionProvider"]).get_inputs()

    def of(batch: int) -> str:
        return f"{image.name}:" + "x".join(map(str, (batch, *image.shape[1:])))

    return {
        "trt_profile_min_shapes": of(1),
        "trt_profile_opt_shapes": of(max_batch),
        "trt_profile_max_shapes": of(max_batch),
    }


def _caches(model: Model, cache_dir: Path | None) -> dict[str, Any]:
    """A folder for each file and release of ONNX Runtime, as an engine of another must not be loaded."""
    if cache_dir is None:
        return {}
    digest = hashlib.sha256(model if isinstance(model, bytes) else model.read_bytes()).hexdigest()
    folder = str(private_folder(cache_dir, "tensorrt", ort.__version__, digest[:16]))
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": folder,
    }


TENSORRT = ExecutionProvider("tensorrt", partial(check_gpu, NAME), _open)
