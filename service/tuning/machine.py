"""What a measurement here depends on: the processor, the GPU, the versions, the model, what is fixed."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnxruntime as ort
import PIL

from model_store.cpu_features import CPUINFO, cpu_features
from model_store.stored_model import StoredModel
from service import __version__
from service.config import Settings, cuda_variables
from service.tuning.fixed import fixed
from service.tuning.profile import Key, one_line

# What /proc/cpuinfo calls a processor: by its name on x86, by numbers on ARM.
_NAMES: Final = ("model name", "CPU implementer", "CPU part")


def key_here(stored: StoredModel, cores: int, settings: Settings) -> Key:
    """The key of a measurement of ``stored`` made now, by a worker with ``cores`` and ``settings``."""
    features = cpu_features()
    manifest = stored.manifest
    return Key(
        cpu=cpu_name(),
        cores=cores,
        int8_dot=features.int8_dot,
        bf16=features.bf16,
        gpu=_gpu(settings.providers.gpu_device, cuda_variables()),
        onnxruntime=ort.__version__,
        openvino=_version("onnxruntime-ep-openvino"),
        pillow=PIL.__version__,
        resnet_serving=__version__,
        model=manifest.name,
        version=manifest.version,
        sha256={variant.precision: variant.sha256 for variant in manifest.variants},
        fixed=fixed(settings),
    )


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, or the architecture's where ``cpuinfo`` does not tell it."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value)
    return one_line(" ".join(fields[name] for name in _NAMES if name in fields)) or platform.machine()


def _gpu(device: int, cuda: Mapping[str, str]) -> str | None:
    """The kinds of GPU here and the driver's version, and which is used where that matters; None where there is none.

    NVML shows every GPU in the order of the bus. CUDA hides and orders them by its variables, ``cuda``; what these
    say is taken as it is, as the same words choose the same GPU.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        kinds = {pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count)}
        driver = pynvml.nvmlSystemGetDriverVersion()
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None
    visible = cuda.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    chosen = visible[device].strip() if device < len(visible) else ""
    if not re.match(r"\d|GPU-|MIG-", chosen):
        return None
    which = ""
    # Of GPUs of one kind any is the same, but for a slice of one.
    if len(kinds) > 1 or chosen.startswith("MIG-"):
        which = f"{chosen} ({cuda.get('CUDA_DEVICE_ORDER', 'FASTEST_FIRST')}) of "
    return one_line(f"{which}{' and '.join(sorted(kinds))}, driver {driver}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
