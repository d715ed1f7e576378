"""Execution providers: which can be had here, and an ONNX Runtime session on one.

On CPUs a slot is a core: as many batches side by side as there are cores beat
one batch on all of them. ``fp32`` means fp32 arithmetic: OpenVINO
would run bfloat16 by default where the CPU has it, so it is told not to.

Documents: https://onnxruntime.ai/docs/execution-providers/ (CUDA, OpenVINO) and
https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/ (plugins).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import onnxruntime as ort

from model_store.openvino_plugin import PluginUnavailable, cpu_device
from service.config import Provider

logger = logging.getLogger(__name__)

AUTO_ORDER: Final[tuple[Provider, ...]] = ("cuda", "openvino", "cpu")
CUDA_SLOTS: Final = 2  # one batch computes while the next is copied


class ProviderUnavailable(Exception):
    """This provider cannot be had here; the message says why."""


@dataclass(frozen=True)
class Share:
    """One worker's part of the machine: its cores, and how many batches it computes at once where that is given."""

    cpus: int
    wanted_slots: int | None = None

    def slots(self, provider: Provider) -> int:
        """Batches at the same time: one a core, or two in flight on a GPU."""
        return self.wanted_slots or (CUDA_SLOTS if provider == "cuda" else self.cpus)

    def threads(self, provider: Provider) -> int:
        """Threads for each batch, so that all slots together use all cores."""
        return max(1, self.cpus // self.slots(provider))


@dataclass(frozen=True)
class OpenedSession:
    """A session, the provider it really runs on with how many slots, and why the ones before it were passed over."""

    session: Any
    provider: Provider
    slots: int
    passed_over: tuple[str, ...]


def _session_options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads take the cores that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open_cpu(path: Path, share: Share) -> Any:
    return ort.InferenceSession(path, _session_options(share.threads("cpu")), providers=["CPUExecutionProvider"])


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


def _open_cuda(path: Path, share: Share) -> Any:
    del share
    ort.preload_dlls()  # CUDA and cuDNN from their Python packages
    # TF32 would round fp32 inputs to 10 bits of mantissa.
    cuda = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    providers = [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]
    session = ort.InferenceSession(path, _session_options(1), providers=providers)
    # Where CUDA cannot be started, ONNX Runtime goes on with the CPU and only logs it.
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise ProviderUnavailable("ONNX Runtime could not start CUDA")
    return session


def _openvino_device() -> Any:
    try:
        return cpu_device()
    except PluginUnavailable as error:
        raise ProviderUnavailable(str(error)) from error


def _check_openvino() -> None:
    _openvino_device()


def _open_openvino(path: Path, share: Share) -> Any:
    slots = share.slots("openvino")
    config = {
        "CPU": {
            "INFERENCE_PRECISION_HINT": "f32",  # of an int8 file, too: for the parts that are float
            "NUM_STREAMS": str(slots),
            "INFERENCE_NUM_THREADS": str(slots * share.threads("openvino")),
        }
    }
    options = _session_options(1)
    # Where OpenVINO took only parts of the graph, the rest would run elsewhere without a word.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices([_openvino_device()], {"load_config": json.dumps(config)})
    return ort.InferenceSession(path, options)


@dataclass(frozen=True)
class _Entry:
    check: Callable[[], None]
    open: Callable[[Path, Share], Any]


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


def open_session(
    file: Path | Callable[[Provider], Path], requested: Literal["auto"] | Provider, share: Share
) -> OpenedSession:
    """A session for ``file`` on the requested provider; ``auto`` falls back in ``AUTO_ORDER``.

    Where providers run different files, ``file`` is a function that says which.
    """
    names, passed_over = candidates(requested)
    for name in names:
        path = file if isinstance(file, Path) else file(name)
        try:
            session = PROVIDERS[name].open(path, share)
        except Exception as error:  # ONNX Runtime raises classes of its own, without a common base
            if requested != "auto" or name == names[-1]:
                raise ProviderUnavailable(f"{name}: {error}") from error
            logger.warning("%s: provider %s failed, trying the next: %s", path.name, name, error)
            passed_over.append(f"{name}: {error}")
        else:
            return OpenedSession(session, name, share.slots(name), tuple(passed_over))
    raise ProviderUnavailable("; ".join(passed_over))
