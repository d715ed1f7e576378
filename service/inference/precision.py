"""Which variant of a model runs on a provider: the fastest whose gate passed on this kind of provider.

Arithmetic differs between CPUs and GPUs, so a gate counts only on the kind of
provider that it was measured on. And int8 and bf16 are fast, and int8 right,
only on CPUs with instructions for them (``model_store.cpu_features``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

from model_store.cpu_features import CpuFeatures, cpu_features
from model_store.manifest import Precision, Variant
from model_store.stored_model import StoredModel
from service.config import ConfigError, variable
from service.providers import kind
from service.settings import Provider

Wanted = Literal["auto"] | Precision

# The fastest first; fp32 is what is left.
_FAST: Final[Mapping[Provider, tuple[Precision, ...]]] = MappingProxyType(
    {
        "openvino": ("int8", "bf16"),
        "cpu": ("int8",),
        "cuda": ("fp16",),
        "tensorrt": ("int8", "fp16"),
    }
)


def choose_variant(stored: StoredModel, wanted: Wanted, provider: Provider, cpu: CpuFeatures | None = None) -> Variant:
    """The variant to run on ``provider``; ``StoreError`` where there is none, ``ConfigError`` where it cannot run.

    ``auto`` takes what is fastest there and was gated on such a provider; a name takes that one, whatever it says of
    itself. ``cpu`` is this machine's by default.
    """
    if wanted == "auto":
        fast = next((variant for variant, objection in _fast(stored, provider, cpu) if objection is None), None)
        return fast or stored.variant("fp32")
    variant = stored.variant(wanted)
    if wanted == "bf16":
        _check_bf16([provider], cpu)
    return variant


def admitted(stored: StoredModel, provider: Provider, cpu: CpuFeatures | None = None) -> tuple[Precision, ...]:
    """What may run on ``provider`` unasked, fp32 first: gated there, and with the instructions it needs here."""
    fast = [variant.precision for variant, objection in _fast(stored, provider, cpu) if objection is None]
    return ("fp32", *reversed(fast))


def passed_over(stored: StoredModel, provider: Provider, cpu: CpuFeatures | None = None) -> tuple[str, ...]:
    """Why ``auto`` does not take the variants that would be faster on ``provider`` than the one it takes."""
    reasons = []
    for variant, objection in _fast(stored, provider, cpu):
        if objection is None:
            break
        reasons.append(f"{variant.precision} passed over: {objection}")
    return tuple(reasons)


def check_precision(
    stored: StoredModel, wanted: Wanted, cpu: CpuFeatures | None = None, providers: Sequence[Provider] = ("openvino",)
) -> None:
    """``StoreError`` where ``stored`` lacks what is asked for, or lacks fp32, which ``auto`` falls back to.

    ``ConfigError`` where none of ``providers``, those that will be tried, can compute in it here.
    """
    stored.variant("fp32" if wanted == "auto" else wanted)
    if wanted == "bf16":
        _check_bf16(providers, cpu)


def _check_bf16(providers: Sequence[Provider], cpu: CpuFeatures | None) -> None:
    if "openvino" not in providers:
        tried = " or ".join(providers)
        raise ConfigError(f"{variable('precision')}='bf16': {tried} does not compute in it; OpenVINO does")
    if not (cpu or cpu_features()).bf16:
        raise ConfigError(f"{variable('precision')}='bf16': this CPU has no bf16 instructions")


def _fast(stored: StoredModel, provider: Provider, cpu: CpuFeatures | None) -> Iterator[tuple[Variant, str | None]]:
    """The variants that are faster than fp32 on ``provider``, the fastest first, and what speaks against each."""
    for precision in _FAST[provider]:
        if variant := stored.manifest.variant(precision):
            yield variant, _objection(variant, provider, cpu or cpu_features())


def _objection(variant: Variant, provider: Provider, cpu: CpuFeatures) -> str | None:
    if not variant.gated or variant.gate is None:
        return "it is ungated"
    if kind(variant.gate.provider) != kind(provider):
        return f"its gate was measured on {variant.gate.provider}, on no {kind(provider)}"
    if kind(provider) == "CPU" and variant.precision == "int8" and not cpu.int8_dot:
        return "this CPU has no 8-bit dot product"
    if variant.precision == "bf16" and not cpu.bf16:
        return "this CPU has no bf16 instructions"
    return None
