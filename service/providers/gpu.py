"""Sessions on an NVIDIA GPU, CUDA's and TensorRT's: memory on the device that stays, and CUDA graphs over it.

A slot is a lane: for each batch size and choice of outputs it has inputs and outputs on the device, bound once, so
that a run copies pixels in, computes and copies logits out, and allocates nothing. While one lane copies, another
computes. A CUDA graph replays a captured run with one launch instead of one a kernel.

I/O binding: https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html
CUDA graphs: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#using-cuda-graphs-preview
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.providers.base import ProviderUnavailable

Arrays = Mapping[str, npt.NDArray[Any]]

_TYPES: Final[Mapping[str, type[np.generic]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def check_gpu(provider: str) -> None:
    """``ProviderUnavailable`` unless the driver has an NVIDIA GPU and this onnxruntime ``provider``."""
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
    if provider not in ort.get_available_providers():
        raise ProviderUnavailable(f"this onnxruntime has no {provider}; install the gpu extra")


def forbid_tf32() -> None:
    """Tell NVIDIA's libraries to compute fp32 in fp32, whatever the environment said; before the first GPU session.

    TensorRT's builder rounds to TF32 unless told otherwise, and ONNX Runtime has no option for that. The variable is
    the process's, and keeps the value that the first session met, CUDA's too:
    https://github.com/microsoft/onnxruntime/issues/26029
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


class _Captures:
    """Runs at the same time, but a capture alone in the process.

    While one thread captures, CUDA forbids all others the calls that allocate and copy.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._capturing = False

    @contextmanager
    def run(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def capture(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._capturing = True  # first, so that no new run keeps it waiting
            self._changed.wait_for(lambda: not self._running)
        try:
            yield
        finally:
            with self._changed:
                self._capturing = False
                self._changed.notify_all()


_CAPTURES: Final = _Captures()


@dataclass(frozen=True)
class _Bound:
    """Inputs and outputs on the device, bound once; ``options`` name the CUDA graph that belongs to them."""

    inputs: Mapping[str, Any]
    binding: Any
    options: Any

    def run(self, session: Any, feeds: Arrays) -> list[npt.NDArray[Any]]:
        for name, array in feeds.items():
            self.inputs[name].update_inplace(array)
        session.run_with_iobinding(self.binding, self.options)
        return list(self.binding.copy_outputs_to_cpu())


class _Lane:
    """One slot: its device memory and, with CUDA graphs, its session and the one thread that runs it.

    ONNX Runtime keeps captured graphs by thread, and a session that captures may be run by one thread only.
    """

    def __init__(self, session: Any, device: tuple[str, int], graphs: bool) -> None:
        self._session = session
        self._device = device
        self._bound: dict[tuple[int, tuple[str, ...]], _Bound] = {}
        self._graph_ids = itertools.count(1)  # 0 is ONNX Runtime's own, -1 is none
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu") if graphs else None

    def run(self, names: tuple[str, ...], feeds: Arrays) -> list[npt.NDArray[Any]]:
        if self._thread is None:
            return self._run(names, feeds)
        return self._thread.submit(self._run, names, feeds).result()

    def _run(self, names: tuple[str, ...], feeds: Arrays) -> list[npt.NDArray[Any]]:
        key = _batch(feeds), names
        if (bound := self._bound.get(key)) is not None:
            with _CAPTURES.run() if self._thread else nullcontext():
                return bound.run(self._session, feeds)
        with _CAPTURES.capture() if self._thread else nullcontext():
            bound = self._bind(names, feeds)
            outputs = bound.run(self._session, feeds)
        self._bound[key] = bound
        return outputs

    def _bind(self, names: tuple[str, ...], feeds: Arrays) -> _Bound:
        binding = self._session.io_binding()
        inputs = {name: self._memory(array.shape, array.dtype.type) for name, array in feeds.items()}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        outputs = {output.name: output for output in self._session.get_outputs()}
        for name in names:
            shape = (_batch(feeds), *outputs[name].shape[1:])
            binding.bind_ortvalue_output(name, self._memory(shape, _TYPES[outputs[name].type]))
        options = None
        if self._thread is not None:
            options = ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(next(self._graph_ids)))
        return _Bound(inputs, binding, options)

    def _memory(self, shape: tuple[int, ...], kind: type[np.generic]) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), kind, *self._device)


def _batch(feeds: Arrays) -> int:
    return len(next(iter(feeds.values())))


class GpuSession:
    """A ``ProviderSession`` over one ``InferenceSession`` a lane; without graphs the lanes may share one.

    ``device`` is ONNX Runtime's name and number of it. Every output's shape must be fixed but for the batch.
    """

    def __init__(self, sessions: Sequence[Any], device: tuple[str, int], graphs: bool = False) -> None:
        self._session = sessions[0]
        self._idle: SimpleQueue[_Lane] = SimpleQueue()  # first in, first out: warming up reaches every lane
        for session in sessions:
            self._idle.put(_Lane(session, device, graphs))

    def get_inputs(self) -> Sequence[Any]:
        return list(self._session.get_inputs())

    def get_outputs(self) -> Sequence[Any]:
        return list(self._session.get_outputs())

    def run(self, output_names: Sequence[str], feeds: Arrays) -> list[npt.NDArray[Any]]:
        lane = self._idle.get()
        try:
            return lane.run(tuple(output_names), feeds)
        finally:
            self._idle.put(lane)
