"""Log lines are written by a thread of their own: what reads them may stall without stopping the service.

A pipe holds some hundred lines. Once it is full, a write waits for whoever reads it; on the event loop, that would be
every request waiting. So lines wait in a queue, and where that is full they are dropped and counted.
"""

from __future__ import annotations

import logging
import os
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from typing import Final

logger = logging.getLogger(__name__)

MOST_LINES: Final = 4096
_FLUSH_S: Final = 2.0


class Descriptor(logging.Handler):
    """Writes lines to a file descriptor. For one thread: it has neither lock nor buffer.

    At its end a process waits for the locks of all handlers and of ``sys.stderr``; a write that waits would keep them.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def createLock(self) -> None:  # noqa: N802 - logging's name
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        data = f"{self.format(record)}\n".encode(errors="backslashreplace")
        try:
            while data:
                data = data[os.write(self._number, data) :]
        except OSError:
            self.handleError(record)


class LineQueue(QueueHandler):
    """Formats lines where they are logged, and has ``to`` write them in a thread.

    dropped -- lines that found the queue full.
    """

    def __init__(self, to: logging.Handler, most: int = MOST_LINES) -> None:
        self._lines: Queue[logging.LogRecord] = Queue(most)
        super().__init__(self._lines)
        self.dropped = 0
        self._told = 0
        # Its thread is a daemon: where nobody reads the lines, the process ends without them.
        QueueListener(self._lines, to).start()

    def emit(self, record: logging.LogRecord) -> None:
        if self.dropped > self._told and not self._lines.full():
            fields = {"dropped": self.dropped - self._told}
            self._told = self.dropped
            notice = logging.LogRecord(logger.name, logging.WARNING, __file__, 0, "log lines were dropped", None, None)
            notice.fields = fields
            super().emit(notice)
        super().emit(record)

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(record)
        except Full:
            self.dropped += 1

    def flush(self) -> None:
        """Wait until all lines are written, but not for long; so does the end of the process (logging.shutdown)."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, _FLUSH_S)


def dropped_lines() -> int:
    """How many of this process's own lines were not written."""
    return sum(one.dropped for one in logging.getLogger("service").handlers if isinstance(one, LineQueue))
