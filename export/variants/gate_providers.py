"""Where the gate runs a variant: ONNX Runtime's CPU provider, OpenVINO's plugin, or a GPU by CUDA.

They are opened as serving opens them: no TF32 on a GPU, and OpenVINO computes in
fp32, the float parts of an int8 file too, unless bf16 is what is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import onnxruntime as ort

from export.variants.gate import GateError, Logits, cpu_logits, logits_by
from model_store.cpu_features import cpu_features
from model_store.manifest import Precision
from model_store.nvidia import GpuUnavailable, check_gpu, layout, open_session
from model_store.onnx_session import open_onnx
from model_store.openvino_plugin import PluginUnavailable, cpu_device
from model_store.reports import GateProvider

_CUDA: Final = "CUDAExecutionProvider"


class ProviderMissing(GateError):
    """A precision that cannot be measured on this machine; the message says why."""


def check_provider(provider: GateProvider, precision: Precision) -> None:
    """``ProviderMissing`` where ``precision`` cannot be measured on ``provider`` here; before anything slow begins."""
    if precision == "bf16":
        if provider != "openvino":
            raise ProviderMissing(f"bf16: {provider} does not compute in it; OpenVINO does")
        if not cpu_features().bf16:
            raise ProviderMissing("bf16: this CPU has no instructions for it (avx512_bf16 or amx_bf16)")
    _PROVIDERS[provider].check()


def open_logits(model: Path | bytes, provider: GateProvider, precision: Precision) -> Logits:
    """An ONNX file, or its content, on ``provider``; ``GateError`` where it cannot be loaded or the provider be had."""
    check_provider(provider, precision)
    return _PROVIDERS[provider].open(model, precision)


def _check_openvino() -> None:
    try:
        cpu_device()
    except PluginUnavailable as error:
        raise ProviderMissing(f"openvino: {error}") from error


def _open_openvino(model: Path | bytes, precision: Precision) -> Logits:
    options = _options()
    # Where OpenVINO took only parts of the graph, the rest would run elsewhere without a word.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    config = {"CPU": {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}}
    options.add_provider_for_devices([cpu_device()], {"load_config": json.dumps(config)})
    return logits_by(_loaded("openvino", lambda: open_onnx(model, options)))


def _check_cuda() -> None:
    if _CUDA not in ort.get_available_providers():
        raise ProviderMissing("cuda: this onnxruntime has no CUDA provider; onnxruntime-gpu has")
    try:
        check_gpu()
    except GpuUnavailable as reason:
        raise ProviderMissing(f"cuda: {reason}") from reason


def _open_cuda(model: Path | bytes, precision: Precision) -> Logits:
    ort.preload_dlls()  # CUDA and cuDNN from their Python packages
    options = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"} | layout(precision)
    providers = [(_CUDA, options), "CPUExecutionProvider"]
    return logits_by(_loaded("cuda", lambda: open_session(model, _options(), providers, "CUDA")))


def _options() -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options


def _loaded(provider: GateProvider, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except GpuUnavailable as reason:
        raise ProviderMissing(f"{provider}: {reason}") from reason
    except Exception as error:  # ONNX Runtime's exceptions share no other public base
        raise GateError(f"{provider} cannot load the file: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class _Entry:
    check: Callable[[], None]
    open: Callable[[Path | bytes, Precision], Logits]


_PROVIDERS: Final[Mapping[GateProvider, _Entry]] = MappingProxyType(
    {
        "cpu": _Entry(lambda: None, lambda model, _: cpu_logits(model)),
        "openvino": _Entry(_check_openvino, _open_openvino),
        "cuda": _Entry(_check_cuda, _open_cuda),
    }
)
