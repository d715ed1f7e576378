"""Execution providers: which can be had here, and an ONNX Runtime session on one.

On CPUs every slot is one thread: as many batches side by side as there are
slots beats one batch on all cores. ``fp32`` means fp32 arithmetic: OpenVINO
would run bfloat16 by default where the CPU has it, so it is told not to.

Documents: https://onnxruntime.ai/docs/execution-providers/ (CUDA, OpenVINO) and
https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/ (plugins).
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import onnxruntime as ort

from service.config import Provider

logger = logging.getLogger(__name__)

AUTO_ORDER: Final[tuple[Provider, ...]] = ("cuda", "openvino", "cpu")
CUDA_SLOTS: Final = 2  # one batch computes while the next is copied


class ProviderUnavailable(Exception):
    """This provider cannot be had here; the message says why."""


@dataclass(frozen=True)
class OpenedSession:
    """A session, the provider it really runs on, and why the ones before it were passed over."""

    session: Any
    provider: Provider
    passed_over: tuple[str, ...]


def _session_options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads take the cores that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open_cpu(path: Path, slots: int) -> Any:
    del slots  # one session serves any number of threads
    return ort.InferenceSession(path, _session_options(1), providers=["CPUExecutionProvider"])


def _check_cuda() -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ProviderUnavailable("this onnxruntime has no CUDA provider; install the gpu extra")
    try:
        import pynvml
    except ImportError as error:
        raise ProviderUnavailable("nvidia-ml-py is not installed") from error
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        raise ProviderUnavailable(f"no NVIDIA driver: {error}") from error
    if not count:
        raise ProviderUnavailable("no NVIDIA GPU")


def _open_cuda(path: Path, slots: int) -> Any:
    del slots
    ort.preload_dlls()  # CUDA and cuDNN from their Python packages
    providers = [("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"}), "CPUExecutionProvider"]
    session = ort.InferenceSession(path, _session_options(1), providers=providers)
    # Where CUDA cannot be started, ONNX Runtime goes on with the CPU and only logs it.
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise ProviderUnavailable("ONNX Runtime could not start CUDA")
    return session


@functools.cache
def _openvino_device() -> Any:
    """The plugin's CPU device; registers the plugin once a process."""
    try:
        import onnxruntime_ep_openvino as plugin
    except ImportError as error:
        raise ProviderUnavailable("onnxruntime-ep-openvino is not installed") from error
    try:
        ort.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
    except Exception as error:
        raise ProviderUnavailable(f"the plugin cannot be loaded: {error}") from error
    cpu = ort.OrtHardwareDeviceType.CPU
    for device in ort.get_ep_devices():
        if device.ep_name == plugin.get_ep_name() and device.device.type == cpu:
            return device
    raise ProviderUnavailable("the plugin offers no CPU device")


def _check_openvino() -> None:
    _openvino_device()


def _open_openvino(path: Path, slots: int) -> Any:
    config = {
        "CPU": {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": str(slots),
            "INFERENCE_NUM_THREADS": str(slots),
        }
    }
    options = _session_options(1)
    options.add_provider_for_devices([_openvino_device()], {"load_config": json.dumps(config)})
    return ort.InferenceSession(path, options)


@dataclass(frozen=True)
class _Entry:
    check: Callable[[], None]
    open: Callable[[Path, int], Any]


PROVIDERS: Mapping[Provider, _Entry] = MappingProxyType(
    {
        "cuda": _Entry(_check_cuda, _open_cuda),
        "openvino": _Entry(_check_openvino, _open_openvino),
        "cpu": _Entry(lambda: None, _open_cpu),
    }
)


def candidates(requested: Literal["auto"] | Provider) -> tuple[list[Provider], list[str]]:
    """Providers to try, best first, and why others are out; ``ProviderUnavailable`` where a named one is."""
    if requested != "auto":
        PROVIDERS[requested].check()
        return [requested], []
    found: list[Provider] = []
    passed_over: list[str] = []
    for name in AUTO_ORDER:
        try:
            PROVIDERS[name].check()
            found.append(name)
        except ProviderUnavailable as reason:
            passed_over.append(f"{name}: {reason}")
    return found, passed_over


def open_session(path: Path, requested: Literal["auto"] | Provider, slots: int) -> OpenedSession:
    """A session for ``path`` on the requested provider; ``auto`` falls back in ``AUTO_ORDER``."""
    names, passed_over = candidates(requested)
    for name in names:
        try:
            session = PROVIDERS[name].open(path, slots)
        except Exception as error:  # ONNX Runtime raises classes of its own, without a common base
            if requested != "auto" or name == names[-1]:
                raise ProviderUnavailable(f"{name}: {error}") from error
            logger.warning("%s: provider %s failed, trying the next: %s", path.name, name, error)
            passed_over.append(f"{name}: {error}")
        else:
            return OpenedSession(session, name, tuple(passed_over))
    raise ProviderUnavailable("; ".join(passed_over))


def default_slots(requested: Literal["auto"] | Provider, cpus: int, workers: int) -> int:
    """Slots of one worker: its share of the cores, or two batches in flight on a GPU."""
    names, _ = candidates(requested)
    return CUDA_SLOTS if names[0] == "cuda" else max(1, cpus // workers)
