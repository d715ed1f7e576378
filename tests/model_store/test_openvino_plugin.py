from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from model_store.openvino_plugin import PluginUnavailable, cpu_device
from tests.openvino import need_openvino


def device(name: str, kind: str) -> Any:
    return SimpleNamespace(ep_name=name, device=SimpleNamespace(type=kind))


@dataclass
class Runtime:
    """Stands for ``onnxruntime``: knows the plugin's devices once the plugin is registered, and takes it only once."""

    offers: list[Any] = field(default_factory=lambda: [device("OpenVINO", "gpu"), device("OpenVINO", "cpu")])
    error: Exception | None = None
    registered: list[tuple[str, str]] = field(default_factory=list)

    OrtHardwareDeviceType = SimpleNamespace(CPU="cpu", GPU="gpu")

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if self.error is not None:
            raise self.error
        if self.registered:
            raise RuntimeError(f"{name} is already registered")
        self.registered.append((name, path))

    def unregister_execution_provider_library(self, name: str) -> None:
        self.registered = [known for known in self.registered if known[0] != name]

    def get_ep_devices(self) -> list[Any]:
        return [device("CPUExecutionProvider", "cpu"), *(self.offers if self.registered else [])]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    runtime = Runtime()
    plugin = ModuleType("onnxruntime_ep_openvino")
    vars(plugin).update(get_ep_name=lambda: "OpenVINO", get_library_path=lambda: "/lib/openvino.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", plugin)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)  # type: ignore[arg-type]
    return runtime


def test_the_plugin_is_registered_once(runtime: Runtime) -> None:
    found = [cpu_device() for _ in range(3)]
    assert {(d.ep_name, d.device.type) for d in found} == {("OpenVINO", "cpu")}
    assert runtime.registered == [("OpenVINO", "/lib/openvino.so")]


def test_threads_that_ask_at_once_register_it_once(runtime: Runtime) -> None:
    together = threading.Barrier(8)

    def ask(_: int) -> Any:
        together.wait(30)
        return cpu_device()

    with ThreadPoolExecutor(8) as pool:
        assert all(d.device.type == "cpu" for d in pool.map(ask, range(8)))
    assert len(runtime.registered) == 1


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime_ep_openvino"])
def test_a_package_that_is_not_installed(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PluginUnavailable, match=f"^{package.replace('_', '-')} is not installed$"):
        cpu_device()


def test_a_library_that_does_not_load_says_why_in_one_line(runtime: Runtime) -> None:
    runtime.error = RuntimeError("libtbb.so:\n  cannot open")
    with pytest.raises(PluginUnavailable, match=r"cannot be loaded: libtbb.so: cannot open$"):
        cpu_device()
    runtime.error = None
    assert cpu_device().device.type == "cpu"


def test_a_plugin_for_other_devices(runtime: Runtime) -> None:
    runtime.offers = [device("OpenVINO", "gpu")]
    for _ in range(2):
        with pytest.raises(PluginUnavailable, match="no CPU device"):
            cpu_device()


def test_a_plugin_for_no_device_at_all_is_given_back(runtime: Runtime) -> None:
    """As on AMD's CPUs: the reason is the same each time, and the library is not in the way of another try."""
    runtime.offers = []
    for _ in range(2):
        with pytest.raises(PluginUnavailable, match="no CPU device"):
            cpu_device()
        assert not runtime.registered
    runtime.offers = [device("OpenVINO", "cpu")]
    assert cpu_device().device.type == "cpu"


def test_the_real_one() -> None:
    need_openvino()
    for found in (cpu_device(), cpu_device()):
        assert found.device.type == onnxruntime.OrtHardwareDeviceType.CPU
