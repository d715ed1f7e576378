"""What this machine's processor computes fast: 8-bit dot products and bfloat16, as /proc/cpuinfo tells.

Where they are missing, int8 and bf16 are no gain. 8-bit products may even be wrong: x86 without VNNI adds them
in 16 bits, which saturate. What cannot be read is not assumed.

Documents: the kernel's arch/x86/include/asm/cpufeatures.h and Documentation/arch/arm64/elf_hwcaps.rst name the flags;
https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html tells of the saturation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")

_INT8_DOT: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
_BF16: Final = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class CpuFeatures:
    """Whether all cores have them: dot products of 8-bit numbers summed in 32 bits, and OpenVINO's bf16."""

    int8_dot: bool
    bf16: bool


@cache
def cpu_features(cpuinfo: Path = CPUINFO) -> CpuFeatures:
    """Those of this machine; none where ``cpuinfo`` cannot be read."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = (line.partition(":") for line in text.splitlines())
    # A line a core, "flags" on x86 and "Features" on ARM; cores may differ.
    cores = [frozenset(flags.split()) for name, _, flags in lines if name.strip() in ("flags", "Features")]
    common = frozenset.intersection(*cores) if cores else frozenset[str]()
    return CpuFeatures(int8_dot=not common.isdisjoint(_INT8_DOT), bf16=not common.isdisjoint(_BF16))
