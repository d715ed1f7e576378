"""What the worker processes of one service share: a folder with metrics and marks.

While the service starts it is ready when all its workers are warm. A worker
that replaces one that died finds the service started: it takes no connection
before it is warm, and until then the others answer.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_READY_PREFIX = "ready."
_STARTED = "started"


def make_run_dir(wanted: Path | None) -> Path:
    """An empty folder for one service's workers; a temporary one, removed at exit, unless one is named."""
    if wanted is None:
        folder = Path(tempfile.mkdtemp(prefix="resnet-serving-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    wanted.mkdir(parents=True, exist_ok=True)
    for left in [*wanted.glob("*.db"), *wanted.glob(f"{_READY_PREFIX}*"), wanted / _STARTED]:
        left.unlink(missing_ok=True)
    return wanted


class Workers:
    """The ``count`` workers around ``run_dir``; None where this process is the only one."""

    def __init__(self, run_dir: Path | None, count: int) -> None:
        self._run_dir = run_dir
        self._count = count

    @property
    def replacing(self) -> bool:
        """Whether this worker joins a service that runs already."""
        return self._run_dir is not None and (self._run_dir / _STARTED).exists()

    @property
    def started(self) -> bool:
        """Whether all workers have been ready once."""
        if self._run_dir is None:
            return True
        mark = self._run_dir / _STARTED
        if mark.exists():
            return True
        if len(list(self._run_dir.glob(f"{_READY_PREFIX}*"))) < self._count:
            return False
        mark.touch()
        return True

    def mark_ready(self) -> None:
        if self._run_dir is not None:
            (self._run_dir / f"{_READY_PREFIX}{os.getpid()}").touch()
