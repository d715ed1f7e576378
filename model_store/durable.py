"""Writing that stays over a loss of power: a rename is durable once its folder is synced, its content if synced before.

Without that, a file system may keep the rename and lose the content: a version that is there, and broken.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Have the disk hold what ``path``, a file or a folder, is now."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """``sync`` all that is in ``folder``, then the folder."""
    for path in folder.iterdir():
        if path.is_dir():
            sync_files(path)
        elif path.is_file():
            sync(path)
    sync(folder)
