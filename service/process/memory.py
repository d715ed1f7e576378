"""What loading leaves behind: given back to the system, or out of the garbage collector's sight."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def trim() -> None:
    """Return freed memory to the system: compiling a model frees much that glibc would keep; elsewhere, nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def settle() -> None:
    """Keep the objects that there are for good: a full collection looks at what came after them alone.

    With all that a worker imports it takes a tenth of a second, and stops every thread for that long.
    """
    gc.collect()
    gc.freeze()
