"""The files behind prometheus_client's multiprocess mode: room for them, and what dead workers leave."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Final

from prometheus_client import values

from service.process.workers import alive

logger = logging.getLogger(__name__)

# By prometheus_client's names. Far more than the bounded labels of this service fill.
_BYTES: Final = {
    "counter": 2**20,
    "histogram": 2**22,
    "gauge_livesum": 2**20,
    "gauge_livemax": 2**20,
    "gauge_livemostrecent": 2**20,
}


def reserve(shared_dir: Path) -> bool:
    """Whether this process's files have their room on the disk; where not, its metrics are kept in memory.

    prometheus_client maps sparse files into memory: with a full disk, the first write to a hole in one of them is a
    bus error, which ends the process. And it cannot read an empty file, so the other workers, which make a page of all
    files, see one only with its room.
    """
    made: list[Path] = []
    try:
        for kind, size in _BYTES.items():
            path = shared_dir / f"{kind}_{os.getpid()}.db"
            unfinished = path if path.exists() else path.with_suffix(".new")
            made += [path, unfinished]
            with unfinished.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            unfinished.replace(path)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        logger.warning("no room for shared metrics, so each worker shows its own: %s", error)
        values.ValueClass = values.MutexValue  # type: ignore[misc, assignment, unused-ignore]
        return False
    return True


def forget_dead_workers(shared_dir: Path) -> None:
    """Drop the gauges of processes that are gone, so that a killed worker's last values do not stay."""
    for file in shared_dir.glob("gauge_live*_*.db"):
        found = re.search(r"_(\d+)\.db$", file.name)
        if found and not alive(int(found[1])):
            file.unlink(missing_ok=True)
