from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model_store.store import StoredModel
from service import providers
from service.providers import AUTO_ORDER, CUDA_SLOTS, ProviderUnavailable, Share, candidates, open_session
from tests.service.conftest import TinyModel

MODEL = Path("model.onnx")


class Options:
    """What the code under test asked of ``ort.SessionOptions``."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.devices: list[Any] = []
        self.provider_options: dict[str, str] = {}
        self.intra_op_num_threads = 0

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value

    def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
        self.devices, self.provider_options = devices, options


@dataclass
class FakeRuntime:
    """Stands for the ``onnxruntime`` module: what is installed, what works, what was asked of it."""

    available: list[str] = field(default_factory=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    cuda_starts: bool = True
    devices: list[Any] = field(default_factory=list)
    register_error: Exception | None = None
    registered: list[str] = field(default_factory=list)
    sessions: list[Any] = field(default_factory=list)
    preloaded: int = 0
    broken: frozenset[str] = frozenset()

    SessionOptions = Options
    OrtHardwareDeviceType = SimpleNamespace(CPU="cpu", GPU="gpu")

    def get_available_providers(self) -> list[str]:
        return self.available

    def preload_dlls(self) -> None:
        self.preloaded += 1

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if self.register_error:
            raise self.register_error
        self.registered.append(name)

    def get_ep_devices(self) -> list[Any]:
        return self.devices if self.registered else []

    def InferenceSession(self, path: Path, options: Options, providers: list[Any] | None = None) -> Any:  # noqa: N802
        names = [p if isinstance(p, str) else p[0] for p in providers or ["OpenVINO"]]
        if names[0] in self.broken:
            raise ValueError(f"{names[0]} is broken")
        if names[0] == "CUDAExecutionProvider" and not self.cuda_starts:
            names = ["CPUExecutionProvider"]  # as ONNX Runtime does
        session = SimpleNamespace(path=path, options=options, asked=providers, get_providers=lambda: names)
        self.sessions.append(session)
        return session


class NVMLError(Exception):
    pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    runtime = FakeRuntime()
    monkeypatch.setattr(providers, "ort", runtime)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)  # type: ignore[arg-type]
    driver(monkeypatch, 1)
    plugin(monkeypatch, runtime)
    return runtime


def driver(monkeypatch: pytest.MonkeyPatch, gpus: int | None) -> None:
    """A machine with so many GPUs; None: without a driver."""

    def init() -> None:
        if gpus is None:
            raise NVMLError("Driver Not Loaded")

    module = ModuleType("pynvml")
    vars(module).update(nvmlInit=init, nvmlDeviceGetCount=lambda: gpus, NVMLError=NVMLError, nvmlShutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "pynvml", module)


def plugin(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime | None) -> None:
    """The OpenVINO plugin, with a GPU and a CPU device; None: not installed."""
    if runtime is None:
        monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
        return
    module = ModuleType("onnxruntime_ep_openvino")
    vars(module).update(get_ep_name=lambda: "OpenVINO", get_library_path=lambda: "/lib/openvino.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", module)
    runtime.devices = [
        SimpleNamespace(ep_name=name, device=SimpleNamespace(type=kind))
        for name, kind in (("CPUExecutionProvider", "cpu"), ("OpenVINO", "gpu"), ("OpenVINO", "cpu"))
    ]


def without_gpu(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(monkeypatch, None)


def without_cuda_build(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.available = ["CPUExecutionProvider"]


def with_no_device(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(monkeypatch, 0)


Change = Callable[[FakeRuntime, pytest.MonkeyPatch], None]


# CUDA


def test_cuda_is_first_where_it_works(fake: FakeRuntime) -> None:
    for requested in ("auto", "cuda"):
        opened = open_session(MODEL, requested, Share(2))  # type: ignore[arg-type]
        assert (opened.provider, opened.passed_over) == ("cuda", ())
        assert opened.session.get_providers()[0] == "CUDAExecutionProvider"
    assert fake.preloaded == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [(without_gpu, "Driver Not Loaded"), (without_cuda_build, "gpu extra"), (with_no_device, "no NVIDIA GPU")],
)
def test_cuda_that_cannot_be_had(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch, change: Change, reason: str
) -> None:
    change(fake, monkeypatch)
    found, passed_over = candidates("auto")
    assert found == ["openvino", "cpu"]
    assert len(passed_over) == 1
    assert reason in passed_over[0]
    opened = open_session(MODEL, "auto", Share(2))
    assert opened.provider == "openvino"
    assert reason in opened.passed_over[0]
    assert opened.passed_over[0].startswith("cuda: ")
    for use in (lambda: candidates("cuda"), lambda: open_session(MODEL, "cuda", Share(2))):
        with pytest.raises(ProviderUnavailable, match=reason):
            use()


def test_a_machine_without_the_nvml_package_has_no_cuda(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert candidates("auto")[0] == ["openvino", "cpu"]
    with pytest.raises(ProviderUnavailable):
        candidates("cuda")


def test_a_session_that_fell_back_to_the_cpu_is_no_cuda_session(fake: FakeRuntime) -> None:
    fake.cuda_starts = False
    opened = open_session(MODEL, "auto", Share(2))
    assert opened.provider == "openvino"
    assert opened.passed_over == ("cuda: ONNX Runtime could not start CUDA",)
    with pytest.raises(ProviderUnavailable, match="could not start CUDA"):
        open_session(MODEL, "cuda", Share(2))


# OpenVINO


def test_openvino_computes_in_fp32_with_a_stream_a_slot(fake: FakeRuntime) -> None:
    opened = open_session(MODEL, "openvino", Share(3))
    options = opened.session.options
    config = json.loads(options.provider_options["load_config"])
    assert config["CPU"] == {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": "3",
        "INFERENCE_NUM_THREADS": "3",
    }
    assert [(d.ep_name, d.device.type) for d in options.devices] == [("OpenVINO", "cpu")]


def no_plugin(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, None)


def plugin_without_cpu(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.devices = fake.devices[:2]


def plugin_that_does_not_load(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.register_error = RuntimeError("libtbb is missing")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_plugin, "onnxruntime-ep-openvino is not installed"),
        (plugin_without_cpu, "no CPU device"),
        (plugin_that_does_not_load, "libtbb is missing"),
    ],
)
def test_openvino_that_cannot_be_had(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch, change: Change, reason: str
) -> None:
    without_gpu(fake, monkeypatch)
    change(fake, monkeypatch)
    opened = open_session(MODEL, "auto", Share(2))
    assert opened.provider == "cpu"
    assert [text.split(":")[0] for text in opened.passed_over] == ["cuda", "openvino"]
    assert reason in opened.passed_over[1]
    with pytest.raises(ProviderUnavailable, match=reason):
        candidates("openvino")


# Order and fall-back


def test_auto_tries_each_in_order(fake: FakeRuntime, caplog: pytest.LogCaptureFixture) -> None:
    assert AUTO_ORDER == ("cuda", "openvino", "cpu")
    fake.broken = frozenset({"CUDAExecutionProvider", "OpenVINO"})
    opened = open_session(MODEL, "auto", Share(1))
    assert opened.provider == "cpu"
    assert opened.passed_over == ("cuda: CUDAExecutionProvider is broken", "openvino: OpenVINO is broken")
    assert "model.onnx" in caplog.text


def test_a_model_that_nobody_takes(fake: FakeRuntime) -> None:
    fake.broken = frozenset({"CUDAExecutionProvider", "OpenVINO", "CPUExecutionProvider"})
    for requested in ("auto", "cpu", "openvino", "cuda"):
        with pytest.raises(ProviderUnavailable, match="is broken"):
            open_session(MODEL, requested, Share(1))  # type: ignore[arg-type]


def test_the_one_asked_for_is_the_only_one_tried(fake: FakeRuntime) -> None:
    assert open_session(MODEL, "cpu", Share(1)).passed_over == ()
    assert (fake.preloaded, fake.registered) == (0, [])


def test_every_session_is_one_thread_that_does_not_spin(fake: FakeRuntime) -> None:
    for requested in AUTO_ORDER:
        options = open_session(MODEL, requested, Share(4)).session.options
        assert options.intra_op_num_threads == 1
        assert options.entries["session.intra_op.allow_spinning"] == "0"


@pytest.mark.parametrize(
    ("provider", "cpus", "wanted", "slots", "threads"),
    [
        ("cpu", 8, None, 8, 1),
        ("openvino", 4, None, 4, 1),
        ("cpu", 8, 1, 1, 8),
        ("openvino", 8, 3, 3, 2),
        ("cpu", 2, 4, 4, 1),
        ("cuda", 64, None, CUDA_SLOTS, 32),
        ("cuda", 64, 5, 5, 12),
    ],
)
def test_slots_and_their_threads_use_the_share(
    provider: Any, cpus: int, wanted: int | None, slots: int, threads: int
) -> None:
    share = Share(cpus, wanted)
    assert (share.slots(provider), share.threads(provider)) == (slots, threads)


def test_a_fall_back_from_cuda_has_the_slots_of_its_own_provider(fake: FakeRuntime) -> None:
    fake.cuda_starts = False
    assert open_session(MODEL, "auto", Share(32)).slots == 32


def test_fp32_means_fp32_on_a_gpu(fake: FakeRuntime) -> None:
    session = open_session(MODEL, "cuda", Share(2)).session
    ((name, options), fall_back) = session.asked
    assert (name, fall_back) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["use_tf32"] == "0"


def test_openvino_takes_the_whole_graph_or_none(fake: FakeRuntime) -> None:
    options = open_session(MODEL, "openvino", Share(2)).session.options
    assert options.entries["session.disable_cpu_ep_fallback"] == "1"


# The real ones


def test_a_real_cpu_session(tiny_stored: StoredModel, tiny: TinyModel) -> None:
    opened = open_session(tiny_stored.folder / "fp32.onnx", "cpu", Share(2))
    assert opened.provider == "cpu"
    _check_real(opened.session, tiny)


def test_a_real_openvino_session(tiny_stored: StoredModel, tiny: TinyModel) -> None:
    if importlib.util.find_spec("onnxruntime_ep_openvino") is None:
        pytest.skip("onnxruntime-ep-openvino has no wheel for this platform")
    opened = open_session(tiny_stored.folder / "fp32.onnx", "openvino", Share(2))
    assert opened.provider == "openvino"
    _check_real(opened.session, tiny)
    # A second model in the same process: the plugin is registered already.
    assert open_session(tiny_stored.folder / "fp32.onnx", "openvino", Share(1)).provider == "openvino"


def _check_real(session: Any, tiny: TinyModel) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    (logits,) = session.run(["logits"], {"image": images})
    np.testing.assert_allclose(logits, tiny.logits(images), atol=1e-4)


def test_auto_finds_something_here(tiny_stored: StoredModel) -> None:
    opened = open_session(tiny_stored.folder / "fp32.onnx", "auto", Share(1))
    assert opened.provider in AUTO_ORDER
    assert len(opened.passed_over) == AUTO_ORDER.index(opened.provider)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"junk")
    with pytest.raises(ProviderUnavailable, match="cpu: "):
        open_session(path, "cpu", Share(1))
