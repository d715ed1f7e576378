"""What an administrator asks of all workers: a file a model in the folder they share.

So it reaches every worker, and a worker that replaces one that died finds it, too. A new start forgets it.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_store.names import check_name
from service.process.workers import ASKED_PREFIX

_LOADED: Final = "loaded"
_UNLOADED: Final = "unloaded"


@dataclass(frozen=True)
class Mark:
    """What was asked of a model last; ``stamp`` differs whenever it was asked again."""

    unloaded: bool
    stamp: int


class Control:
    """Marks in ``run_dir``; in memory where that is None, as one process alone has no such folder."""

    def __init__(self, run_dir: Path | None) -> None:
        self._folder = run_dir
        self._marks: dict[str, Mark] = {}
        self._stamps = itertools.count()

    def read(self) -> Mapping[str, Mark]:
        """The marks of all models that have one; ``OSError`` where they cannot be read."""
        if self._folder is None:
            return dict(self._marks)
        return {path.name.removeprefix(ASKED_PREFIX): _read(path) for path in self._folder.glob(f"{ASKED_PREFIX}*")}

    def mark(self, name: str, *, unloaded: bool) -> None:
        """Ask for ``name`` to be taken out, or looked at again and loaded."""
        check_name(name)
        if self._folder is None:
            self._marks[name] = Mark(unloaded, next(self._stamps))
            return
        # Another file each time, so that its inode or its time differs.
        with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=".asking-", delete=False) as file:
            file.write(_UNLOADED if unloaded else _LOADED)
        Path(file.name).replace(self._folder / f"{ASKED_PREFIX}{name}")


def _read(path: Path) -> Mark:
    stat = path.stat()
    return Mark(path.read_text(encoding="ascii") == _UNLOADED, hash((stat.st_ino, stat.st_mtime_ns)))
