"""OpenVINO on the CPU, as a plugin of the stock onnxruntime.

Options (``load_config``): https://onnxruntime.ai/docs/execution-providers/OpenVINO-ExecutionProvider.html
What they mean: https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html
"""

from __future__ import annotations

import json
from typing import Any

from model_store.onnx_session import open_onnx
from model_store.openvino_plugin import PluginUnavailable, cpu_device
from service.process.cpus import allowed_cpus
from service.providers.base import (
    Arithmetic,
    ExecutionProvider,
    Model,
    ProviderUnavailable,
    Share,
    private_folder,
    session_options,
)
from service.settings import ProviderSettings


def _device() -> Any:
    try:
        return cpu_device()
    except PluginUnavailable as error:
        raise ProviderUnavailable(str(error)) from error


def _check() -> None:
    _device()


def _open(model: Model, share: Share, precision: Arithmetic, options: ProviderSettings) -> Any:
    device = _device()
    if precision == "bf16" and "BF16" not in device.ep_metadata.get("OPTIMIZATION_CAPABILITIES", "").split():
        raise ProviderUnavailable("this CPU has no bf16 instructions")
    slots = share.slots("openvino")
    config = {
        # Where it is not told, it rounds to bf16 on CPUs that can, the float parts of an int8 file included.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "NUM_STREAMS": str(slots),
        "INFERENCE_NUM_THREADS": str(slots * share.threads("openvino")),
    }
    if share.cpus < allowed_cpus():
        # It would keep its threads to the first cores, where those of other workers and containers are, too.
        config["ENABLE_CPU_PINNING"] = "NO"
    if options.cache_dir is not None:
        config["CACHE_DIR"] = str(private_folder(options.cache_dir, "openvino"))
    session = session_options(1)
    # Where OpenVINO took only parts of the graph, the rest would run elsewhere without a word.
    session.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session.add_provider_for_devices([device], {"load_config": json.dumps({"CPU": config})})
    return open_onnx(model, session)


OPENVINO = ExecutionProvider("openvino", _check, _open)
