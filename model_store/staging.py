"""Folders in which versions are prepared, beside the models: one is locked while its process lives.

So what a killed process left is told from what another is at, and removed by the next that prepares a version.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

STAGING_PREFIX: Final = ".staging-"

STALE_S: Final = 3600.0
"""Younger ones are left: between being made and being locked, or on a file system whose locks others do not see."""


@contextlib.contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """A new folder below ``root``, removed at the end unless it has another name by then."""
    _remove_stale(root)
    folder = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=root))
    try:
        with _open(folder) as descriptor:
            _lock(descriptor)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(root: Path) -> None:
    for folder in root.glob(f"{STAGING_PREFIX}*"):
        with contextlib.suppress(OSError), _open(folder) as descriptor:
            old = time.time() - os.fstat(descriptor).st_mtime > STALE_S
            if old and _lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _open(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether nobody else has the lock; False, too, where the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
