"""Starts the real service, as `make serve` does, and knows what it should answer."""

from __future__ import annotations

import io
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import numpy.typing as npt
import onnxruntime
import psutil
import pytest
from PIL import Image

from benchmarks.server import free_port as free_port
from benchmarks.server import is_worker
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.stored_model import StoredModel
from model_store.transforms import to_rgb, to_tensor
from service.inference.postprocess import softmax

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
START_LIMIT_S = 120
READY_LINE = "ready after"


def until(found: Callable[[], T], what: str, limit_s: float = START_LIMIT_S, pause_s: float = 0.02) -> T:
    """What ``found`` gives, asked again and again until it is true; fails after a generous while."""
    limit, pause = time.monotonic() + limit_s, threading.Event()
    while not (there := found()):
        assert time.monotonic() < limit, f"{what} never came"
        pause.wait(pause_s)
    return there


class Server:
    """A running service: its address, its process, what it prints."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def wait_for_line(self, text: str, times: int = 1) -> None:
        """Returns when ``text`` was printed ``times`` more times; fails where the process ends first."""
        while times:
            line = self._lines.get(timeout=START_LIMIT_S)
            if line is None:
                pytest.fail(f"the service ended before it printed {text!r}:\n{''.join(self.log)}")
            self.log.append(line)
            times -= text in line

    def workers(self) -> list[psutil.Process]:
        return list(filter(is_worker, psutil.Process(self.process.pid).children(recursive=True)))

    def stop(self, limit_s: float = 60) -> int:
        """SIGTERM, as an orchestrator sends it; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=limit_s)
        self._reader.join()
        return status


@contextmanager
def running(*command: str, workers: int = 1, cwd: Path = ROOT, **settings: str) -> Iterator[Server]:
    """A ready service with the given ``RESNET_*`` settings; by default from this checkout."""
    port = free_port()
    command = command or (sys.executable, "-m", "bentoml", "serve", "service.app:ResNetService")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
    made = command[0] == "make"
    process = subprocess.Popen(
        [*command, f"PORT={port}"] if made else [*command, "--port", str(port), "--host", "127.0.0.1"],
        cwd=cwd,
        env={
            **environment,
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONUNBUFFERED": "1",
            "RESNET_WORKERS": str(workers),
            "RESNET_DRAIN_S": "0",  # no balancer is waited for
            **settings,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",  # what it prints may be wrong, and is then to be seen
    )
    server = Server(process, port)
    try:
        server.wait_for_line(READY_LINE, workers)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[Server]]:
    return running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The service as `make serve` starts it, but in fp32: its answers are compared to the fourth digit."""
    with running(RESNET_PRECISION="fp32") as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as opened:
        yield opened


class Reference:
    """What a stored model answers in fp32, by ONNX Runtime called directly: no service code but softmax."""

    def __init__(self, stored: StoredModel) -> None:
        self.manifest = stored.manifest
        self.labels = stored.labels()
        path = stored.path(stored.variant("fp32"))
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def outputs(self, data: bytes) -> dict[str, npt.NDArray[np.float32]]:
        """Each of the graph's outputs of ``data``, by name."""
        with Image.open(io.BytesIO(data)) as image:
            tensor = to_tensor(to_rgb(image), self.manifest.preprocessing)
        names = [output.name for output in self._session.get_outputs()]
        found = self._session.run(names, {"image": tensor[np.newaxis]})
        return {name: values[0] for name, values in zip(names, found, strict=True)}

    def probabilities(self, data: bytes) -> dict[str, float]:
        calibration = self.manifest.calibration
        temperature = np.float32(1 if calibration is None else calibration.temperature)
        return dict(zip(self.labels, softmax(self.outputs(data)["logits"] / temperature).tolist(), strict=True))

    def check(self, predictions: list[dict[str, object]], data: bytes) -> None:
        """Fails unless ``predictions`` are the top classes of ``data``, with the right probabilities."""
        expected = self.probabilities(data)
        best = sorted(expected.values(), reverse=True)[: len(predictions)]
        for prediction, probability in zip(predictions, best, strict=True):
            assert prediction["label"] == self.labels[int(str(prediction["index"]))]
            assert prediction["probability"] == pytest.approx(probability, abs=1e-4)
            assert prediction["probability"] == pytest.approx(expected[str(prediction["label"])], abs=1e-4)


@pytest.fixture(scope="session")
def reference() -> Reference:
    store = ModelStore(EMBEDDED_MODELS)
    return Reference(store.resolve(store.names()[0]))


def picture(seed: int, size: tuple[int, int] = (320, 240), form: str = "JPEG") -> bytes:
    """A smooth, colourful image that no other seed gives, encoded as ``form``."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    image.save(encoded, form)
    return encoded.getvalue()
