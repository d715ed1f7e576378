"""A BentoML service of this checkout, started for a measurement and watched from outside."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

ROOT: Final = Path(__file__).parents[1]
SERVICE: Final = "service.app:ResNetService"
_START_LIMIT_S: Final = 300.0


class StartFailed(Exception):
    """A server ended, or was not ready in time; the message has the end of what it printed."""


@dataclass(frozen=True)
class Server:
    """A ready server: its address, its first process, how long its start took."""

    url: str
    process: psutil.Process
    start_s: float

    @property
    def classify(self) -> str:
        return f"{self.url}/v1/classify"

    def processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU time of all its processes so far, user and system."""
        times = [process.cpu_times() for process in self.processes()]
        return float(sum(t.user + t.system for t in times))

    def worker_bytes(self) -> int:
        """Resident memory of its largest process: a worker, for the parent holds no model."""
        return max(int(process.memory_info().rss) for process in self.processes())

    def models(self) -> list[dict[str, Any]]:
        """What it says of its models, the default one first."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/v1/models").raise_for_status().json()["models"]
        return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with no other ``RESNET_`` settings than these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
    return {**kept, "BENTOML_DO_NOT_TRACK": "True", "RESNET_DRAIN_S": "0", **settings}


@contextmanager
def bento(
    settings: Mapping[str, str], cpus: Iterable[int] | None = None, service: str = SERVICE, ready: str = "/readyz"
) -> Iterator[Server]:
    """A ready service with these ``RESNET_`` settings, kept to ``cpus``."""
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    with started(command, f"http://127.0.0.1:{port}", ready, clean_environment(settings), cpus) as server:
        yield server


@contextmanager
def started(
    command: list[str],
    url: str,
    ready: str,
    environment: Mapping[str, str],
    cpus: Iterable[int] | None = None,
    cwd: Path = ROOT,
) -> Iterator[Server]:
    """``command``'s server once ``GET url + ready`` gives 200; ended with all its processes afterwards."""
    allowed = sorted(cpus) if cpus is not None else sorted(os.sched_getaffinity(0))
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, allowed)), *command],
            cwd=cwd,
            env=dict(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_ready(url + ready, process, log)
            yield Server(url, psutil.Process(process.pid), time.perf_counter() - began)
        finally:
            _end(process)


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Any) -> None:
    limit = time.monotonic() + _START_LIMIT_S
    with httpx.Client(timeout=5) as client:
        while process.poll() is None and time.monotonic() < limit:
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
    log.seek(0)
    state = "was not ready in time" if process.poll() is None else f"ended with status {process.returncode}"
    raise StartFailed(f"the server {state}: {log.read()[-1500:].strip()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; what is left of it and its children is told so, then killed."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    _, left = psutil.wait_procs(family, timeout=15)
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, left = psutil.wait_procs(left, timeout=5)
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
