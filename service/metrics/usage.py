"""What this process uses of the machine."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.logs.log_writer import dropped_lines

_PAGE_BYTES: Final = resource.getpagesize()


@dataclass(frozen=True)
class Usage:
    """Resident memory, processor time since the start, open files and sockets, lines that the log lost."""

    resident_bytes: int
    cpu_seconds: float
    open_files: int
    log_lines_dropped: int


def usage_here() -> Usage:
    """This process's; 0 for what the system does not tell."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        resident = int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone, no Path a file
    except OSError:
        resident, files = 0, 0
    return Usage(resident, used.ru_utime + used.ru_stime, files, dropped_lines())
