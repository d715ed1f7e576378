"""A server of this checkout, started to be measured or broken, watched from outside, ended with all its processes."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

ROOT: Final = Path(__file__).parents[1]
SERVICE: Final = "service.app:ResNetService"
HOST: Final = "127.0.0.1"
_START_LIMIT_S: Final = 300.0
_STOP_LIMIT_S: Final = 60.0

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""A page of metrics, by name and labels."""


class StartFailed(Exception):
    """A server ended, or was not ready in time; the message has the end of what it printed."""


@dataclass(frozen=True)
class Usage:
    """What all processes of a server take together."""

    resident_bytes: int
    open_files: int
    threads: int

    @property
    def resident_mib(self) -> float:
        return self.resident_bytes / 2**20


class Server:
    """``command``'s server on ``port``; ready once ``GET ready`` gives 200. It can be started again."""

    def __init__(
        self, command: Sequence[str], port: int, ready: str, environment: Mapping[str, str], log_file: Path
    ) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.start_s = math.nan
        self._command, self._ready, self._environment = list(command), ready, dict(environment)
        self._log_file = log_file
        self._began_s = math.nan
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def classify(self) -> str:
        return f"{self.url}/v1/classify"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The first one, which starts all others."""
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def log(self) -> str:
        """What it has printed since it was first started."""
        return self._log_file.read_text(errors="backslashreplace")

    def start(self, *before: str) -> None:
        """Start it, by the command ``before`` where one is given."""
        self._began_s = time.perf_counter()
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*before, *self._command], cwd=ROOT, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    def wait_ready(self) -> None:
        limit = time.monotonic() + _START_LIMIT_S
        with httpx.Client(timeout=5) as client:
            while self.process.poll() is None and time.monotonic() < limit:
                if self._readiness(client) == 200:
                    self.start_s = time.perf_counter() - self._began_s
                    return
                time.sleep(0.02)
        status = self.process.returncode
        state = "was not ready in time" if status is None else f"ended with status {status}"
        raise StartFailed(f"the server {state}: {self.log[-1500:].strip()}")

    def stop(self) -> int | None:
        """SIGTERM, as an orchestrator sends it, and the exit status; what does not end by that is killed."""
        if self._process is None:
            return None
        family = self.processes()[1:]
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_LIMIT_S)
        if self._process.poll() is None:
            self._process.kill()
        _end(family)
        return self._process.wait()

    @property
    def readiness(self) -> int:
        """The status of its readiness on a new connection; 0 where nobody answers, or the port is closed."""
        with httpx.Client(timeout=5) as client:
            return self._readiness(client)

    def _readiness(self, client: httpx.Client) -> int:
        try:
            return client.get(f"{self.url}{self._ready}").status_code
        except httpx.TransportError:
            return 0

    def processes(self) -> list[psutil.Process]:
        """The first one, its workers, and theirs; none where the first has ended."""
        if self.process.poll() is not None:
            return []  # its number may be another's by now
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """BentoML's living workers, the oldest first."""
        return sorted(filter(is_worker, self.processes()), key=lambda worker: worker.create_time())

    def usage(self) -> Usage:
        found = self.processes()
        return Usage(
            sum(process.memory_info().rss for process in found),
            sum(process.num_fds() for process in found),
            sum(process.num_threads() for process in found),
        )

    def cpu_s(self) -> float:
        """CPU time of all its processes so far, user and system."""
        times = [process.cpu_times() for process in self.processes()]
        return float(sum(t.user + t.system for t in times))

    def loops_cpu_s(self) -> float:
        """CPU time so far of its workers' first threads, which run their event loops."""
        threads = [(worker.pid, thread) for worker in self.workers() for thread in worker.threads()]
        return float(sum(t.user_time + t.system_time for first, t in threads if t.id == first))

    def worker_bytes(self) -> int:
        """Resident memory of its largest process: a worker, for the parent holds no model."""
        return max(int(process.memory_info().rss) for process in self.processes())

    def metrics(self) -> Samples:
        """The page at ``/metrics``."""
        page = httpx.get(f"{self.url}/metrics", timeout=30).raise_for_status().text
        found = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}

    def models(self) -> list[dict[str, Any]]:
        """What it says of its models, the default one first."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/v1/models", timeout=30).raise_for_status().json()["models"]
        return found


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples called ``name`` that have all of ``labels``."""
    wanted = labels.items()
    return sum(value for (found, its), value in samples.items() if found == name and wanted <= set(its))


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to connections: until it is listened on, none
    of the many that come and go meanwhile may have it.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((HOST, port))
            return port


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with no other ``RESNET_`` settings than these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
    return {**kept, "BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1", "RESNET_DRAIN_S": "0", **settings}


@contextmanager
def bento(
    settings: Mapping[str, str], cpus: Iterable[int] | None = None, service: str = SERVICE, ready: str = "/readyz"
) -> Iterator[Server]:
    """A ready service with these ``RESNET_`` settings, kept to ``cpus``."""
    with prepared(settings, service, ready) as server:
        server.start(*kept_to(cpus))
        server.wait_ready()
        yield server


def kept_to(cpus: Iterable[int] | None) -> tuple[str, ...]:
    """The command before a server's own that keeps it to ``cpus``; none where they are not given."""
    return () if cpus is None else ("taskset", "--cpu-list", ",".join(map(str, sorted(cpus))))


@contextmanager
def prepared(settings: Mapping[str, str], service: str = SERVICE, ready: str = "/readyz") -> Iterator[Server]:
    """The same, yet to be started."""
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", service, "--host", HOST, "--port", str(port)]
    with _ended(command, port, ready, clean_environment(settings)) as server:
        yield server


@contextmanager
def started(command: Sequence[str], port: int, ready: str, environment: Mapping[str, str]) -> Iterator[Server]:
    """``command``'s server on ``port``, ready."""
    with _ended(command, port, ready, environment) as server:
        server.start()
        server.wait_ready()
        yield server


@contextmanager
def _ended(command: Sequence[str], port: int, ready: str, environment: Mapping[str, str]) -> Iterator[Server]:
    with interrupted_by_sigterm(), tempfile.TemporaryDirectory(prefix="server-") as folder:
        server = Server(command, port, ready, environment, Path(folder) / "log")
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM interrupts this program as Ctrl-C does, so that what it has started is ended first."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; another would disturb the ending
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_worker(process: psutil.Process) -> bool:
    """Whether it is one of BentoML's workers, and alive."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "_bentoml_impl.worker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _end(family: list[psutil.Process]) -> None:
    """Processes whose parent has ended, as TorchServe's launcher leaves its server: told to end, then killed."""
    left = [member for member in family if _lives(member)]
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in psutil.wait_procs(left, timeout=5)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
