"""Sessions on an NVIDIA GPU, CUDA's and TensorRT's: memory on the device that stays, and CUDA graphs over it.

A slot is a lane: for each batch size it has inputs and outputs on the device, bound once, so that a run copies pixels
in, computes and copies logits out, and allocates nothing. While one lane copies, another computes. A CUDA graph
replays a captured run with one launch instead of one a kernel, and without asking cuDNN anew how to compute that size.

I/O binding: https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html
CUDA graphs: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#using-cuda-graphs-preview
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from model_store import nvidia
from service.providers.base import Model, ProviderUnavailable, session_options

Arrays = Mapping[str, npt.NDArray[Any]]

_TYPES: Final[Mapping[str, type[np.generic]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def check_gpu(provider: str) -> None:
    """``ProviderUnavailable`` unless the driver has an NVIDIA GPU and this onnxruntime ``provider``."""
    try:
        nvidia.check_gpu()
    except nvidia.GpuUnavailable as reason:
        raise ProviderUnavailable(str(reason)) from reason
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
    """What uses the GPU at the same time, but a capture alone in the process.

    While one thread captures, CUDA forbids all others the calls that allocate, free and copy.
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


def start(model: Model, providers: Sequence[Any], called: str) -> Any:
    """An ``InferenceSession`` whose first provider runs; ``ProviderUnavailable`` says ``called`` where it does not."""
    try:
        with _CAPTURES.run():
            return nvidia.open_session(model, session_options(1), providers, called)
    except nvidia.GpuUnavailable as reason:
        raise ProviderUnavailable(str(reason)) from reason


@dataclass(frozen=True)
class _Bound:
    """Inputs and outputs on the device, bound once; ``options`` name the CUDA graph that belongs to them.

    All outputs, as all are computed whichever are asked for; only those are copied back.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    binding: Any
    options: Any

    def run(self, session: Any, names: Sequence[str], feeds: Arrays) -> list[npt.NDArray[Any]]:
        self.feed(feeds)
        session.run_with_iobinding(self.binding, self.options)
        return [np.array(self.outputs[name].numpy()) for name in names]

    def feed(self, feeds: Arrays) -> None:
        for name, array in feeds.items():
            self.inputs[name].update_inplace(array)


class _Lane:
    """One slot: its device memory and, with CUDA graphs, its session and the one thread that runs it.

    ONNX Runtime keeps captured graphs by thread, and a session that captures may be run by one thread only.
    """

    def __init__(self, session: Any, device: tuple[str, int], graphs: bool) -> None:
        self._session = session
        self._device = device
        self._bound: dict[int, _Bound] = {}  # by batch size
        self._graph_ids = itertools.count(1)  # 0 is ONNX Runtime's own
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu") if graphs else None

    def run(self, names: Sequence[str], feeds: Arrays) -> list[npt.NDArray[Any]]:
        if self._thread is None:
            return self._run(names, feeds)
        return self._thread.submit(self._run, names, feeds).result()

    def _run(self, names: Sequence[str], feeds: Arrays) -> list[npt.NDArray[Any]]:
        batch = len(next(iter(feeds.values())))
        if (bound := self._bound.get(batch)) is None:
            with _CAPTURES.run():
                bound = self._bind(batch, feeds)
            if self._thread is not None:
                self._capture(bound, feeds)
            self._bound[batch] = bound
        with _CAPTURES.run():
            return bound.run(self._session, names, feeds)

    def _capture(self, bound: _Bound, feeds: Arrays) -> None:
        """First a run that is not captured: memory and cuDNN's plans take long, and the others compute meanwhile."""
        uncaptured = _graph(-1)
        with _CAPTURES.run():
            bound.feed(feeds)
            self._session.run_with_iobinding(bound.binding, uncaptured)
        with _CAPTURES.capture():
            self._session.run_with_iobinding(bound.binding, bound.options)

    def _bind(self, batch: int, feeds: Arrays) -> _Bound:
        binding = self._session.io_binding()
        inputs = {name: self._memory(array.shape, array.dtype.type) for name, array in feeds.items()}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        outputs = {
            output.name: self._memory((batch, *output.shape[1:]), _TYPES[output.type])
            for output in self._session.get_outputs()
        }
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        options = None if self._thread is None else _graph(next(self._graph_ids))
        return _Bound(inputs, outputs, binding, options)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        self._bound.clear()
        del self._session

    def _memory(self, shape: tuple[int, ...], kind: type[np.generic]) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), kind, *self._device)


def _graph(number: int) -> Any:
    """Run options that name a CUDA graph: captured when it is new, else replayed; -1 is none."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options


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
            return lane.run(output_names, feeds)
        finally:
            self._idle.put(lane)

    def close(self) -> None:
        """Give the device's memory back, while no other session captures; nothing may be run any more."""
        with _CAPTURES.run():
            while not self._idle.empty():
                self._idle.get().close()
            del self._session


def tried(session: GpuSession) -> GpuSession:
    """``session`` after one blank image (uint8, as every model's).

    A GPU of a wrong architecture or without memory fails only then.
    """
    (image,) = session.get_inputs()
    blank = np.zeros((1, *image.shape[1:]), np.uint8)
    session.run([output.name for output in session.get_outputs()], {image.name: blank})
    return session
