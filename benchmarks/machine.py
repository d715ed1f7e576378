"""What a figure was measured on: processor, cores, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Final

from service.process.cpus import available_cpus

# The instructions that decide how fast a network computes on x86-64.
_FLAGS: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
_PACKAGES: Final = ("onnxruntime", "onnxruntime-ep-openvino", "bentoml", "uvicorn", "numpy", "pillow")


def processor() -> tuple[str, list[str]]:
    """The CPU's name and which of the instructions that matter it has."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), []
    fields: dict[str, str] = {}
    for line in info.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    return fields.get("model name", platform.machine()), [flag for flag in _FLAGS if flag in flags]


def describe() -> dict[str, str]:
    """The machine and the versions, by name."""
    model, flags = processor()
    versions = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{model}, {available_cpus()} of {os.cpu_count()} cores, {platform.machine()}",
        "instructions": " ".join(flags) or "not known",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(versions),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }
