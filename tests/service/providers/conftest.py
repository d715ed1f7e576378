"""A fake onnxruntime: what is installed and works, and all that was asked of it.

Its GPU keeps the rules that the real one documents, and breaks the test that breaks them: a captured graph replays the
buffers that it was captured with, in the thread that captured it, and nobody else touches the GPU meanwhile.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.providers import base, cpu, cuda, gpu, openvino, tensorrt
from tests.service.conftest import CLASSES, SIDE, TinyModel

MODEL = Path("model.onnx")
CAPABILITIES = "BF16 FP32 INT8"


class Options:
    """Stands for ``SessionOptions``."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.devices: list[Any] = []
        self.provider_options: dict[str, str] = {}
        self.intra_op_num_threads = 0
        self.graph_optimization_level = "all"

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value

    def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
        self.devices, self.provider_options = devices, options


class RunOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_run_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class Value:
    """Stands for an ``OrtValue`` on a device."""

    def __init__(self, runtime: FakeRuntime, shape: Sequence[int], kind: type, device: str, number: int) -> None:
        self.runtime = runtime
        self.device = (device, number)
        self.data = np.full(shape, 99, kind)

    def update_inplace(self, array: Any) -> None:
        with self.runtime.using_the_gpu():
            assert (array.shape, array.dtype) == (self.data.shape, self.data.dtype)
            self.data[...] = array

    def numpy(self) -> Any:
        with self.runtime.using_the_gpu():
            return self.data.copy()


class Binding:
    def __init__(self) -> None:
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        self.outputs[name] = value


@dataclass
class FakeSession:
    """Stands for ``InferenceSession``: answers as ``runtime.model``, keeps ``asked`` and every ``run``."""

    runtime: FakeRuntime
    path: Path
    options: Options
    asked: Any
    names: list[str]
    runs: list[tuple[Binding, RunOptions | None]] = field(default_factory=list)
    graphs: dict[tuple[int, str], Binding] = field(default_factory=dict)
    threads: set[int] = field(default_factory=set)
    planned: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        with self.runtime.using_the_gpu():  # which holds its weights
            weakref.finalize(self, self.runtime.was_freed)

    def get_providers(self) -> list[str]:
        return self.names

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="image", type="tensor(uint8)", shape=["batch", SIDE, SIDE, 3])]

    def get_outputs(self) -> list[Any]:
        shapes = {"logits": ["batch", CLASSES], "embedding": ["batch", 3]}
        return [SimpleNamespace(name=name, type="tensor(float)", shape=shape) for name, shape in shapes.items()]

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: RunOptions | None) -> None:
        self.runs.append((binding, options))
        if self.names[0] in self.runtime.no_kernels:
            raise RuntimeError("no kernel image is available for execution on the device")
        if options is None:
            with self.runtime.using_the_gpu():
                self._compute(binding)
            return
        assert self.asked[0][1]["enable_cuda_graph"] == "1"
        self.threads.add(threading.get_ident())
        assert len(self.threads) == 1, "a session that captures was run by two threads"
        graph = (threading.get_ident(), options.entries["gpu_graph_id"])
        if graph[1] == "-1":
            with self.runtime.using_the_gpu():
                self._compute(binding)
                self.planned.add(len(binding.inputs["image"].data))
        elif graph in self.graphs:
            with self.runtime.using_the_gpu():
                self._compute(self.graphs[graph])
        else:
            assert int(graph[1]) > 0
            assert len(binding.inputs["image"].data) in self.planned, "all others wait while cuDNN is asked"
            if self.runtime.no_captures:
                raise RuntimeError("operation not permitted when stream is capturing")
            with self.runtime.capturing():
                self._compute(binding)
            self.graphs[graph] = binding

    def _compute(self, binding: Binding) -> None:
        images = binding.inputs["image"].data
        if "logits" in binding.outputs:
            binding.outputs["logits"].data[...] = self.runtime.model.logits(images)
        if "embedding" in binding.outputs:
            binding.outputs["embedding"].data[...] = images.mean(axis=(1, 2))


@dataclass
class FakeRuntime:
    """Stands for the ``onnxruntime`` module."""

    available: list[str] = field(default_factory=lambda: [tensorrt.NAME, cuda.NAME, "CPUExecutionProvider"])
    failing: frozenset[str] = frozenset()  # passed over with a line in the log, as ONNX Runtime does
    broken: frozenset[str] = frozenset()
    no_kernels: frozenset[str] = frozenset()  # opened, but not able to run
    no_graphs: bool = False  # part of the model runs elsewhere
    no_captures: bool = False  # part of it waits for the GPU
    devices: list[Any] = field(default_factory=list)
    register_error: Exception | None = None
    registered: list[str] = field(default_factory=list)
    sessions: list[FakeSession] = field(default_factory=list)
    preloaded: int = 0
    severities: list[int] = field(default_factory=list)
    tf32: list[str] = field(default_factory=list)  # what NVIDIA's libraries were told when they were loaded, and after
    model: TinyModel = field(default_factory=TinyModel)
    busy: int = 0
    captures: int = 0
    freed: int = 0
    faults: list[str] = field(default_factory=list)
    at_capture: Callable[[], None] = lambda: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    SessionOptions = Options
    RunOptions = RunOptions
    OrtHardwareDeviceType = SimpleNamespace(CPU="cpu", GPU="gpu")
    GraphOptimizationLevel = SimpleNamespace(ORT_DISABLE_ALL="none")
    __version__ = "9.8.7"

    @property
    def OrtValue(self) -> Any:  # noqa: N802
        return SimpleNamespace(
            ortvalue_from_shape_and_type=lambda shape, kind, device, number: Value(self, shape, kind, device, number)
        )

    @contextmanager
    def using_the_gpu(self) -> Iterator[None]:
        with self._lock:
            assert self.busy >= 0, "a call to the GPU while a graph was being captured"
            self.busy += 1
        yield
        with self._lock:
            self.busy -= 1

    def was_freed(self) -> None:
        self.freed += 1
        if self.busy < 0:
            self.faults.append("memory was freed while a graph was being captured")

    @contextmanager
    def capturing(self) -> Iterator[None]:
        with self._lock:
            assert self.busy == 0, "captured while others used the GPU"
            self.busy = -1
            self.captures += 1
        self.at_capture()
        yield
        with self._lock:
            self.busy = 0

    def get_available_providers(self) -> list[str]:
        return self.available

    def set_default_logger_severity(self, level: int) -> None:
        self.severities.append(level)

    def preload_dlls(self) -> None:
        self.preloaded += 1
        self.tf32.append(os.environ["NVIDIA_TF32_OVERRIDE"])

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if self.register_error:
            raise self.register_error
        self.registered.append(name)

    def get_ep_devices(self) -> list[Any]:
        return self.devices if self.registered else []

    def InferenceSession(  # noqa: N802
        self, path: Path, options: Options, providers: list[Any] | None = None, enable_fallback: int = 1
    ) -> Any:
        names = [p if isinstance(p, str) else p[0] for p in providers or ["OpenVINO"]]
        assert not enable_fallback, "it would go on elsewhere"
        if names[0] in self.broken:
            raise ValueError(f"{names[0]} is broken")
        if self.no_graphs and "enable_cuda_graph" in dict(providers[0][1] if providers else {}):
            raise RuntimeError("This session cannot use the graph capture feature")
        self.tf32.append(os.environ["NVIDIA_TF32_OVERRIDE"])
        session = FakeSession(self, path, options, providers, [name for name in names if name not in self.failing])
        self.sessions.append(session)
        return session


class NVMLError(Exception):
    pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    """A machine with all providers, one GPU and an Intel CPU."""
    runtime = FakeRuntime()
    for module in (base, cpu, openvino, gpu, cuda, tensorrt):
        if hasattr(module, "ort"):
            monkeypatch.setattr(module, "ort", runtime)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)  # type: ignore[arg-type]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    driver(monkeypatch, 1)
    plugin(monkeypatch, runtime)
    return runtime


def driver(monkeypatch: pytest.MonkeyPatch, gpus: int | None) -> None:
    """A machine with so many GPUs; None: without a driver."""

    def init() -> None:
        if gpus is None:
            raise NVMLError("Driver Not Loaded")

    module = ModuleType("pynvml")
    vars(module).update(nvmlInit=init, nvmlDeviceGetCount=lambda: gpus, NVMLError=NVMLError)
    monkeypatch.setitem(sys.modules, "pynvml", module)


def plugin(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime | None, capabilities: str = CAPABILITIES) -> None:
    """The OpenVINO plugin, with a GPU and a CPU device; None: not installed."""
    if runtime is None:
        monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
        return
    module = ModuleType("onnxruntime_ep_openvino")
    vars(module).update(get_ep_name=lambda: "OpenVINO", get_library_path=lambda: "/lib/openvino.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", module)
    metadata = {"OPTIMIZATION_CAPABILITIES": capabilities}
    runtime.devices = [
        SimpleNamespace(ep_name=name, device=SimpleNamespace(type=kind), ep_metadata=metadata)
        for name, kind in (("CPUExecutionProvider", "cpu"), ("OpenVINO", "gpu"), ("OpenVINO", "cpu"))
    ]


def some_images(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def check_answers(session: Any, model: TinyModel, sizes: Sequence[int] = (3, 1, 3)) -> None:
    for seed, size in enumerate(sizes):
        images = some_images(size, seed)
        (logits,) = session.run(["logits"], {"image": images})
        np.testing.assert_allclose(logits, model.logits(images), atol=1e-4)


def provider_options(session: FakeSession) -> Mapping[str, Mapping[str, Any]]:
    """Options by provider, of those that were given some."""
    return {entry[0]: entry[1] for entry in session.asked if not isinstance(entry, str)}
