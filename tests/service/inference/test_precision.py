"""Which variant runs: by provider, by where its gate was, by what the CPU can do, and by name."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from model_store.cpu_features import CpuFeatures
from model_store.manifest import Gate, Precision
from model_store.reports import GateProvider
from model_store.store import StoreError
from model_store.stored_model import StoredModel
from service.config import ConfigError
from service.inference.precision import admitted, check_precision, choose_variant, passed_over
from service.settings import Provider
from tests.service.conftest import TinyModel, a_gate, publish_tiny

ALL = CpuFeatures(int8_dot=True, bf16=True)
NO_BF16 = CpuFeatures(int8_dot=True, bf16=False)
NO_INT8 = CpuFeatures(int8_dot=False, bf16=True)
NONE = CpuFeatures(int8_dot=False, bf16=False)

PASSED = {"int8": a_gate(), "bf16": a_gate(provider="openvino"), "fp16": a_gate(provider="cuda")}


def publish(root: Path, **gates: Gate) -> StoredModel:
    """``tiny`` with a variant for each of ``gates``."""
    return publish_tiny(root, others={name: (TinyModel(seed=8), gate) for name, gate in gates.items()})


@pytest.mark.parametrize(
    ("provider", "cpu", "there", "chosen"),
    [
        ("openvino", ALL, ("int8", "bf16", "fp16"), "int8"),
        ("openvino", ALL, ("bf16", "fp16"), "bf16"),
        ("openvino", ALL, ("fp16",), "fp32"),
        ("openvino", NO_INT8, ("int8", "bf16"), "bf16"),
        ("openvino", NO_BF16, ("bf16",), "fp32"),
        ("openvino", NONE, ("int8", "bf16"), "fp32"),
        ("cpu", ALL, ("int8", "bf16", "fp16"), "int8"),
        ("cpu", ALL, ("bf16", "fp16"), "fp32"),
        ("cpu", NO_INT8, ("int8", "bf16"), "fp32"),
        ("cuda", NONE, ("int8", "bf16", "fp16"), "fp16"),
        ("cuda", ALL, ("int8", "bf16"), "fp32"),
        ("tensorrt", ALL, ("int8", "bf16", "fp16"), "fp16"),
    ],
)
def test_auto_takes_the_fastest(
    tmp_path: Path, provider: Provider, cpu: CpuFeatures, there: tuple[str, ...], chosen: Precision
) -> None:
    stored = publish(tmp_path, **{name: PASSED[name] for name in there})
    assert choose_variant(stored, "auto", provider, cpu).precision == chosen


@pytest.mark.parametrize(
    ("provider", "cpu", "may_run"),
    [
        ("openvino", ALL, ("fp32", "bf16", "int8")),
        ("openvino", NO_INT8, ("fp32", "bf16")),
        ("openvino", NO_BF16, ("fp32", "int8")),
        ("cpu", ALL, ("fp32", "int8")),
        ("cuda", ALL, ("fp32", "fp16")),
        ("tensorrt", ALL, ("fp32", "fp16")),
    ],
)
def test_what_may_run_unasked(tmp_path: Path, provider: Provider, cpu: CpuFeatures, may_run: tuple[str, ...]) -> None:
    assert admitted(publish(tmp_path, **PASSED), provider, cpu) == may_run


def test_the_ungated_may_not_run_unasked(tmp_path: Path) -> None:
    stored = publish(tmp_path, int8=a_gate("off", passed=False), bf16=a_gate("off", passed=False, provider="openvino"))
    assert admitted(stored, "openvino", ALL) == ("fp32",)


def test_every_provider_has_fp32(tiny_stored: StoredModel) -> None:
    for provider in get_args(Provider):
        assert choose_variant(tiny_stored, "auto", provider, ALL).precision == "fp32"
        assert passed_over(tiny_stored, provider, NONE) == ()


@pytest.mark.parametrize(
    ("measured", "provider", "counts"),
    [
        ("cpu", "cpu", True),
        ("cpu", "openvino", True),
        ("openvino", "cpu", True),
        ("openvino", "openvino", True),
        ("cuda", "cpu", False),
        ("cuda", "openvino", False),
        ("cuda", "tensorrt", True),
        ("cpu", "tensorrt", False),
    ],
)
def test_a_gate_counts_on_its_own_kind_of_provider(
    tmp_path: Path, measured: GateProvider, provider: Provider, counts: bool
) -> None:
    stored = publish(tmp_path, int8=a_gate(provider=measured))
    assert choose_variant(stored, "auto", provider, ALL).precision == ("int8" if counts else "fp32")
    kind = "GPU" if provider == "tensorrt" else "CPU"
    told = () if counts else (f"int8 passed over: its gate was measured on {measured}, on no {kind}",)
    assert passed_over(stored, provider, ALL) == told


@pytest.mark.parametrize("measured", ["cpu", "openvino"])
def test_fp16_needs_a_gate_on_a_gpu(tmp_path: Path, measured: GateProvider) -> None:
    """A CPU computes an fp16 file in fp32: what it gives says little of a GPU."""
    stored = publish(tmp_path, fp16=a_gate(provider=measured))
    told = f"fp16 passed over: its gate was measured on {measured}, on no GPU"
    for provider in ("cuda", "tensorrt"):
        assert choose_variant(stored, "auto", provider, ALL).precision == "fp32"
        assert passed_over(stored, provider, ALL) == (told,)


@pytest.mark.parametrize("gate", [a_gate("off", passed=False), a_gate("accuracy", passed=False)])
def test_auto_never_takes_an_ungated_variant(tmp_path: Path, gate: Gate) -> None:
    stored = publish(tmp_path, int8=a_gate("off", passed=False), fp16=a_gate("off", passed=False, provider="cuda"))
    for variant in stored.manifest.variants[1:]:
        object.__setattr__(variant, "gate", gate.model_copy(update={"provider": variant.gate.provider}))
    for provider in get_args(Provider):
        assert choose_variant(stored, "auto", provider, ALL).precision == "fp32"
        assert "passed over: it is ungated" in passed_over(stored, provider, ALL)[0]


def test_what_is_passed_over_is_told_up_to_the_one_that_is_taken(tmp_path: Path) -> None:
    stored = publish(tmp_path, **PASSED)
    int8, bf16 = (
        "int8 passed over: this CPU has no 8-bit dot product",
        "bf16 passed over: this CPU has no bf16 instructions",
    )
    assert passed_over(stored, "openvino", NONE) == (int8, bf16)
    assert passed_over(stored, "openvino", NO_INT8) == (int8,)
    assert passed_over(stored, "openvino", NO_BF16) == ()
    assert passed_over(stored, "cpu", NONE) == (int8,)
    assert passed_over(stored, "cuda", NONE) == ()


# By name


@pytest.mark.parametrize("gate", [a_gate(), a_gate("off", passed=False)])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_precision_by_name_is_that_one_gated_or_not(tmp_path: Path, precision: Precision, gate: Gate) -> None:
    stored = publish(tmp_path, int8=gate, fp16=gate)
    for provider in get_args(Provider):
        assert choose_variant(stored, precision, provider, NONE).precision == precision
    check_precision(stored, precision, NONE)


def test_bf16_by_name_is_for_openvino_on_a_cpu_that_has_it(tmp_path: Path) -> None:
    stored = publish(tmp_path, bf16=a_gate("off", passed=False, provider="openvino"))
    assert choose_variant(stored, "bf16", "openvino", ALL).precision == "bf16"
    check_precision(stored, "bf16", ALL)
    for provider in ("cpu", "cuda", "tensorrt"):
        with pytest.raises(ConfigError, match=f"RESNET_PRECISION='bf16': {provider} does not compute in it"):
            choose_variant(stored, "bf16", provider, ALL)
    for call in (
        lambda: choose_variant(stored, "bf16", "openvino", NO_BF16),
        lambda: check_precision(stored, "bf16", NO_BF16),
    ):
        with pytest.raises(ConfigError, match="this CPU has no bf16 instructions"):
            call()


def test_bf16_by_name_needs_one_provider_that_has_it(tmp_path: Path) -> None:
    stored = publish(tmp_path, bf16=a_gate("off", passed=False, provider="openvino"))
    check_precision(stored, "bf16", ALL, ["cuda", "openvino", "cpu"])
    with pytest.raises(ConfigError, match="cuda or cpu does not compute in it; OpenVINO does"):
        check_precision(stored, "bf16", ALL, ["cuda", "cpu"])
    check_precision(stored, "fp32", ALL, ["cuda", "cpu"])


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16"])
def test_a_precision_that_the_model_lacks(tiny_stored: StoredModel, precision: Precision) -> None:
    for call in (
        lambda: choose_variant(tiny_stored, precision, "openvino", ALL),
        lambda: check_precision(tiny_stored, precision, ALL),
    ):
        with pytest.raises(StoreError, match=f"no {precision} variant; there: fp32") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_model_without_an_fp32_variant(tiny_stored: StoredModel) -> None:
    manifest = tiny_stored.manifest
    only = [manifest.variants[0].model_copy(update={"precision": "fp16"})]
    stored = StoredModel(tiny_stored.folder, manifest.model_copy(update={"variants": only}))
    with pytest.raises(StoreError, match="no fp32 variant"):
        choose_variant(stored, "auto", "cpu", ALL)
    with pytest.raises(StoreError, match="no fp32 variant"):
        check_precision(stored, "auto", ALL)
