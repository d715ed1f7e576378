"""What a measurement here depends on: the processor, the GPU, the versions, the model, what is fixed."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Final

import onnxruntime as ort
import PIL

from model_store.cpu_features import CPUINFO, cpu_features
from model_store.store import StoredModel
from service import __version__
from service.config import Settings
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
        gpu=_gpu(settings.providers.gpu_device),
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


def _gpu(device: int) -> str | None:
    """The GPU's name and its driver's version; None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(device))
        return one_line(f"{name}, driver {pynvml.nvmlSystemGetDriverVersion()}")
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
