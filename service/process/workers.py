"""What the worker processes of one service share: a folder with metrics and marks.

While the service starts it is ready when all its workers are warm. A worker
that replaces one that died finds the service started: it takes no connection
before it is warm, and until then the others answer.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Final, Literal

from service.process.cpus import available_cpus

logger = logging.getLogger(__name__)

# One event loop and one interpreter lock keep about this many cores of decoding and inference busy.
CORES_PER_WORKER: Final = 8
# Of decoding alone, which leaves Python's lock less often (docs/performance.md, On a GPU).
CORES_PER_GPU_WORKER: Final = 4

ASKED_PREFIX: Final = "asked."
"""Of the marks that service/models/control.py keeps in the shared folder."""

_READY_PREFIX = "ready."
_STARTED = "started"
_FAILED = "failed"


def worker_count(wanted: Literal["auto"] | int, *, on_gpu: bool) -> int:
    """How many workers serve; ``auto`` by the cores that may be used, and whether all they do is decode."""
    if wanted != "auto":
        return wanted
    return math.ceil(available_cpus() / (CORES_PER_GPU_WORKER if on_gpu else CORES_PER_WORKER))


def make_run_dir(wanted: Path | None) -> Path:
    """An empty folder for one service's workers; a temporary one, removed at exit, unless one is named."""
    if wanted is None:
        folder = Path(tempfile.mkdtemp(prefix="resnet-serving-"))
    else:
        folder = wanted
        folder.mkdir(parents=True, exist_ok=True)
        marks = (found for prefix in (_READY_PREFIX, ASKED_PREFIX) for found in folder.glob(f"{prefix}*"))
        for left in [*folder.glob("*.db"), *marks, folder / _STARTED, folder / _FAILED]:
            left.unlink(missing_ok=True)
    atexit.register(_leave, folder, temporary=wanted is None)
    return folder


def _leave(folder: Path, *, temporary: bool) -> None:
    """Remove a folder of our own; make the service's exit status tell that its workers could not start."""
    failed = (folder / _FAILED).exists()
    if temporary:
        shutil.rmtree(folder, ignore_errors=True)
    if failed:
        logging.shutdown()  # which the next line leaves out: it writes what is still to be written
        os._exit(1)


def alive(pid: int) -> bool:
    """Whether there is a process ``pid``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Workers:
    """The ``count`` workers around ``run_dir``; None where this process is the only one."""

    def __init__(self, run_dir: Path | None, count: int) -> None:
        self._run_dir = run_dir
        self.count = count

    @property
    def run_dir(self) -> Path | None:
        """The folder they share; None where this process is the only one."""
        return self._run_dir

    @property
    def replacing(self) -> bool:
        """Whether this worker joins a service that runs already."""
        return self._run_dir is not None and self.started

    @property
    def started(self) -> bool:
        """Whether all workers have been ready once."""
        return self._run_dir is None or (self._run_dir / _STARTED).exists()

    def mark_ready(self) -> None:
        """This worker is ready, and with the last one the service is; ``OSError`` where a start cannot be noted."""
        if self._run_dir is None:
            return
        try:
            (self._run_dir / f"{_READY_PREFIX}{os.getpid()}").touch()
            if len(self._ready()) >= self.count:
                (self._run_dir / _STARTED).touch()
        except OSError as error:  # a full disk is no reason for a worker not to take another's place
            if not self.started:
                raise
            logger.warning("%s: %s", self._run_dir, error)

    @property
    def alone(self) -> bool:
        """Whether no other worker that is ready lives."""
        return not self._ready() - {os.getpid()}

    def _ready(self) -> set[int]:
        """Processes of the workers that have been ready and live."""
        marks = [] if self._run_dir is None else self._run_dir.glob(f"{_READY_PREFIX}*")
        return {pid for mark in marks if alive(pid := int(mark.suffix[1:]))}

    def end_service(self) -> None:
        """Stop the whole service, with a status that says it failed; its parent would only start the worker again."""
        if self._run_dir is None:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            (self._run_dir / _FAILED).touch()
            os.kill(os.getppid(), signal.SIGTERM)
