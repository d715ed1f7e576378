"""Where a variant is measured: OpenVINO for real where it is installed, CUDA by a fake, and what is missing told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.variants import gate_providers as module
from export.variants.gate import GateError, cpu_logits
from export.variants.gate_providers import ProviderMissing, check_provider, open_logits
from model_store.cpu_features import CpuFeatures
from model_store.manifest import Precision
from model_store.nvidia import GpuUnavailable
from model_store.openvino_plugin import PluginUnavailable
from tests.export import colours
from tests.openvino import need_bf16, need_openvino

PIXELS = np.stack(list(colours.IMAGES.read()))


@pytest.fixture(scope="module")
def model() -> bytes:
    data: bytes = colours.graph().model.SerializeToString()
    return data


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_features", lambda: CpuFeatures(int8_dot=True, bf16=True))


def test_the_cpu_provider(model: bytes) -> None:
    assert np.array_equal(open_logits(model, "cpu", "fp32")(PIXELS), cpu_logits(model)(PIXELS))


# OpenVINO


@pytest.mark.parametrize("as_file", [True, False])
def test_openvino_computes_in_fp32(model: bytes, tmp_path: Path, as_file: bool) -> None:
    need_openvino()
    given = colours.save(tmp_path) if as_file else model
    np.testing.assert_allclose(open_logits(given, "openvino", "fp32")(PIXELS), cpu_logits(model)(PIXELS), atol=1e-4)


def test_openvino_computes_in_bf16(model: bytes) -> None:
    """Three digits are right and the fourth is not, or the hint was lost."""
    need_bf16()
    expected = cpu_logits(model)(PIXELS)
    error = np.abs(open_logits(model, "openvino", "bf16")(PIXELS) - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 0.1


class FakeRuntime:
    """Stands in for onnxruntime: keeps what a session is opened with."""

    def __init__(self) -> None:
        self.opened: list[dict[str, Any]] = []
        self.preloaded = False
        self.severity = 2
        self.starts = True

    def SessionOptions(self) -> Any:  # noqa: N802 - onnxruntime's name
        options = SimpleNamespace(entries={}, devices=[], log_severity_level=2)
        options.add_session_config_entry = options.entries.__setitem__
        options.add_provider_for_devices = lambda *given: options.devices.append(given)
        return options

    def set_default_logger_severity(self, level: int) -> None:
        self.severity = level

    def preload_dlls(self) -> None:
        self.preloaded = True

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, model: Any, options: Any, providers: Any = (), enable_fallback: int = 1) -> Any:  # noqa: N802
        assert not enable_fallback, "a run that fails would be done again elsewhere"
        self.opened.append({"model": model, "options": options, "providers": providers})
        found = ["CUDAExecutionProvider"] * self.starts + ["CPUExecutionProvider"]
        return SimpleNamespace(
            get_providers=lambda: found,
            run=lambda names, inputs: [np.full((len(inputs["image"]), 2), len(names), np.float64)],
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRuntime]:
    runtime = FakeRuntime()
    monkeypatch.setattr(module, "ort", runtime)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "check_gpu", lambda: None)
    return runtime


@pytest.fixture
def fake_without_libraries(fake: FakeRuntime) -> FakeRuntime:
    fake.starts = False
    return fake


@pytest.mark.usefixtures("with_bf16")
@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("int8", "f32"), ("bf16", "bf16")])
def test_what_openvino_is_told(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch, precision: Precision, hint: str
) -> None:
    monkeypatch.setattr(module, "cpu_device", lambda: "the CPU")
    open_logits(b"model", "openvino", precision)
    (opened,) = fake.opened
    ((devices, given),) = opened["options"].devices
    assert devices == ["the CPU"]
    assert json.loads(given["load_config"]) == {"CPU": {"INFERENCE_PRECISION_HINT": hint}}
    assert opened["options"].entries == {"session.disable_cpu_ep_fallback": "1"}


# What is missing


@pytest.mark.usefixtures("with_bf16")
@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_without_the_plugin(monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    def missing() -> None:
        raise PluginUnavailable("onnxruntime-ep-openvino is not installed")

    monkeypatch.setattr(module, "cpu_device", missing)
    for call in (check_provider, lambda *words: open_logits(b"", *words)):
        with pytest.raises(ProviderMissing, match="openvino: onnxruntime-ep-openvino is not installed"):
            call("openvino", precision)


def test_a_cpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would compute in fp32 without a word, and the gate find nothing wrong."""
    monkeypatch.setattr(module, "cpu_features", lambda: CpuFeatures(int8_dot=True, bf16=False))
    with pytest.raises(ProviderMissing, match="this CPU has no instructions for it"):
        check_provider("openvino", "bf16")


@pytest.mark.usefixtures("with_bf16")
@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_a_provider_without_bf16(provider: Any) -> None:
    with pytest.raises(ProviderMissing, match=f"{provider} does not compute in it; OpenVINO does"):
        check_provider(provider, "bf16")


def test_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderMissing, match="this onnxruntime has no CUDA provider; onnxruntime-gpu has"):
        check_provider("cuda", "fp16")


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_file_that_is_no_model(provider: Any) -> None:
    if provider == "openvino":
        need_openvino()
    with pytest.raises(GateError, match="cannot load") as caught:
        open_logits(b"junk", provider, "int8")
    assert not isinstance(caught.value, ProviderMissing)


# CUDA, by a fake; tests/gpu has the real one

_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


@pytest.mark.parametrize(("precision", "layout"), [("fp32", {}), ("fp16", {"prefer_nhwc": "1"}), ("int8", {})])
def test_cuda_is_opened_as_serving_opens_it(fake: FakeRuntime, precision: Precision, layout: dict[str, str]) -> None:
    logits = open_logits(b"model", "cuda", precision)(PIXELS)
    assert (logits.shape, logits.dtype) == ((len(PIXELS), 2), np.float32)
    (opened,) = fake.opened
    assert opened["model"] == b"model"
    assert opened["providers"] == [("CUDAExecutionProvider", _OPTIONS | layout), "CPUExecutionProvider"]
    assert fake.preloaded
    assert fake.severity == 4


def test_why_cuda_does_not_start_stays_in_the_log(fake_without_libraries: FakeRuntime) -> None:
    with pytest.raises(ProviderMissing):
        open_logits(b"model", "cuda", "fp16")
    assert fake_without_libraries.severity == 3


def test_a_machine_without_a_gpu(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu() -> None:
        raise GpuUnavailable("no NVIDIA GPU")

    monkeypatch.setattr(module, "check_gpu", no_gpu)
    for call in (check_provider, lambda *words: open_logits(b"", *words)):
        with pytest.raises(ProviderMissing, match="cuda: no NVIDIA GPU"):
            call("cuda", "fp16")
    assert not fake.opened


@pytest.mark.usefixtures("fake_without_libraries")
def test_cuda_that_does_not_start() -> None:
    """ONNX Runtime goes on with the CPU, whose figures would be taken for the GPU's."""
    with pytest.raises(ProviderMissing, match="could not start"):
        open_logits(b"model", "cuda", "fp16")
