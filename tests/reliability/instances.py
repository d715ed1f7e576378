"""Services that are broken on purpose, and clients that know what each image's answer is."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from model_store.store import EMBEDDED_MODELS, ModelStore
from tests.end_to_end.conftest import ROOT, Reference, free_port, picture, until

ANSWER_LIMIT_S = 60.0
"""Longer than any deadline of the service: what has no answer by then has none."""


class Instance:
    """A service on a port of its own that is started, stopped and started again."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = {
            "RESNET_PRECISION": "fp32",
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
        self._log = folder / f"{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self, *before: str) -> None:
        """Start it, by the command ``before`` where one is given."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
        command = [sys.executable, "-m", "bentoml", "serve", "service.app:ResNetService", "--host", "127.0.0.1"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*before, *command, "--port", str(self.port)],
                cwd=ROOT,
                env={**kept, **self._settings},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def readiness(self) -> int:
        """The status of ``/readyz``; 0 where nobody answers, or the port is closed."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code
        except httpx.TransportError:
            return 0

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"it ended: {self.log[-3000:]}"
            return self.readiness == 200

        until(ready, "readiness", pause_s=0.1)

    def workers(self) -> list[psutil.Process]:
        """Its living workers, the oldest first."""
        found = [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if child.status() != psutil.STATUS_ZOMBIE and "_bentoml_impl.worker" in " ".join(child.cmdline())
        ]
        return sorted(found, key=lambda worker: worker.create_time())

    def metrics(self) -> dict[str, float]:
        """Each metric's sum over its labels."""
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(httpx.get(f"{self.url}/metrics", timeout=30).text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    def stop(self) -> int | None:
        """SIGTERM and, should that not do, SIGKILL; the exit status."""
        if self._process is None:
            return None
        family = [psutil.Process(self._process.pid)] if self._process.poll() is None else []
        family += family[0].children(recursive=True) if family else []
        if family:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        finally:
            for process in psutil.wait_procs(family, timeout=1)[1]:
                process.kill()


@contextmanager
def instances(count: int, **settings: str) -> Iterator[list[Instance]]:
    """``count`` ready services; ended afterwards whatever happens."""
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        made = [Instance(Path(folder), **settings) for _ in range(count)]
        try:
            for one in made:
                one.start()
            for one in made:
                one.wait_ready()
            yield made
        finally:
            for one in made:
                one.stop()


@dataclass(frozen=True)
class Image:
    """An image as a whole request, and its answer."""

    request: bytes
    label: str
    probability: float

    def is_answered_by(self, body: bytes) -> bool:
        best = json.loads(body)["results"][0]["predictions"][0]
        return best["label"] == self.label and abs(best["probability"] - self.probability) < 1e-3


@functools.cache
def images(count: int = 40) -> Sequence[Image]:
    """Images of which no two have the same answer, by ONNX Runtime called directly."""
    store = ModelStore(EMBEDDED_MODELS)
    reference = Reference(store.resolve(store.names()[0]))
    made = []
    for seed in range(count):
        data = picture(seed)
        label, probability = max(reference.probabilities(data).items(), key=lambda found: found[1])
        head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        made.append(Image(head.encode() + data, label, probability))
    assert len({(one.label, round(one.probability, 3)) for one in made}) > count // 2
    return made


class Refused(Exception):
    """The port is closed: the service has taken nothing."""


@dataclass
class Connection:
    """One to ``port``, kept while the service keeps it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: bool = False
    open: bool = True

    @classmethod
    async def to(cls, port: int) -> Connection:
        try:
            return cls(*await asyncio.open_connection("127.0.0.1", port))
        except ConnectionRefusedError as error:
            raise Refused from error

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; ``ConnectionError`` or ``IncompleteReadError`` where there is no whole answer."""
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        body = await self.reader.readexactly(int(head.partition(b"\ncontent-length:")[2].partition(b"\r\n")[0]))
        self.used, self.open = True, b"\nconnection: close" not in head
        return int(head[9:12]), body

    def close(self) -> None:
        self.open = False
        self.writer.close()


LOST = (ConnectionError, asyncio.IncompleteReadError, TimeoutError)


@dataclass
class Tally:
    """What became of all requests."""

    answered: int = 0
    wrong: int = 0
    lost: list[str] = field(default_factory=list)
    refused: int = 0
    busy: int = 0
    stale: int = 0
    seconds: list[float] = field(default_factory=list)

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return 1000 * ordered[int(share * (len(ordered) - 1))] if ordered else 0.0


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Print ``rows``, one a line."""
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<52} {value:.2f}" if isinstance(value, float) else f"  {name:<52} {value}")


async def closed_loop(port: int, clients: int, seconds: float) -> float:
    """Answers a second that ``clients`` get, who each send their next image when they have an answer."""
    turn = itertools.cycle(images())
    answered, end = 0, time.monotonic() + seconds

    async def client() -> None:
        nonlocal answered
        connection = await Connection.to(port)
        while time.monotonic() < end:
            status, _ = await connection.ask(next(turn).request)
            assert status == 200
            answered += 1
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return answered / seconds


def is_refused(port: int) -> bool:
    """Whether a new connection to ``port`` is refused."""
    with socket.socket() as client:
        client.settimeout(5)
        try:
            return client.connect_ex(("127.0.0.1", port)) != 0
        except TimeoutError:
            return False
