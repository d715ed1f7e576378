"""A log line a request: which are written, what is in them. Nothing of the image, no header but the request's id."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from service.errors import Overloaded
from service.logs.slow_requests import SlowRequests
from service.logs.stages import Stages
from service.settings import LogSettings
from service.tracing import ids

logger = logging.getLogger("service.request")

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_REFUSED: Final = Overloaded.status
_MAX_METHOD: Final = 16  # characters; a client may send any word


def plain_id(text: str) -> str:
    """``text`` where it may stand in logs and headers as it is, else nothing."""
    return text if _PLAIN_ID.fullmatch(text) else ""


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered.

    route      -- a name of ours, never the path that was sent.
    error      -- the error's code; empty where all went well.
    ended_s    -- when the answer was there, seconds since 1970.
    trace_id   -- in hexadecimal digits; empty where it is not recorded.
    """

    request_id: str
    method: str
    route: str
    status: int
    error: str
    model: str
    version: str
    seconds: float
    stages: Stages
    ended_s: float
    trace_id: str = ""

    def as_fields(self) -> dict[str, Any]:
        """By name, as log lines and ``/debug`` have them; without what there is not."""
        fields = {
            "id": self.request_id,
            "trace_id": self.trace_id,
            "method": self.method[:_MAX_METHOD],
            "route": self.route,
            "status": self.status,
            "error": self.error,
            "model": self.model,
            "version": self.version,
            "images": self.stages.images,
            "bytes": self.stages.received_bytes,
            "total_ms": round(self.seconds * 1e3, 3),
            **self.stages.as_milliseconds(),
        }
        return {name: value for name, value in fields.items() if value}


class Bucket:
    """Lets ``per_s`` a second through, as many at once after a quiet second; counts what it stopped."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s)
        self._clock = clock
        self._tokens = self._most
        self._filled_s = clock()
        self._stopped = 0

    def take(self) -> bool:
        now_s = self._clock()
        self._tokens = min(self._most, self._tokens + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        if self._tokens < 1:
            self._stopped += 1
            return False
        self._tokens -= 1
        return True

    def stopped(self) -> int:
        """How many it stopped since it was last asked."""
        stopped, self._stopped = self._stopped, 0
        return stopped


class RequestLog:
    """Told of every answered request: writes the lines that the settings want, keeps the slowest. Event loop only."""

    def __init__(self, settings: LogSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.slow = SlowRequests[Answered](clock)
        self._wanted = settings.log_requests
        self._bucket = None if self._wanted == "all" else Bucket(settings.log_sample_per_s, clock)

    def answered(
        self,
        request_id: str,
        method: str,
        route: str,
        status: int,
        error: str,
        model: str,
        version: str,
        seconds: float,
        stages: Stages,
    ) -> None:
        """A request's answer is there, ``seconds`` after its first byte; called by the task that made it."""
        logged = self._logged(status)
        if not logged and not self.slow.wants(seconds):
            return
        traced = ids()
        trace_id = "" if traced is None else traced[0]
        request = Answered(
            request_id, method, route, status, error, model, version, seconds, stages, time.time(), trace_id
        )
        self.slow.add(seconds, request)
        if logged:
            self._write(request)

    def close(self) -> None:
        """Say what no further line will."""
        if self._bucket is not None and (left_out := self._bucket.stopped()):
            _write(logging.INFO, "requests without a line", {"left_out": left_out})

    def _logged(self, status: int) -> bool:
        if self._wanted == "off" or (self._wanted == "errors" and not _is_failure(status)):
            return False
        return self._bucket is None or self._bucket.take()

    def _write(self, request: Answered) -> None:
        fields = request.as_fields()
        if self._bucket is not None and (left_out := self._bucket.stopped()):
            fields["left_out"] = left_out
        _write(logging.WARNING if _is_failure(request.status) else logging.INFO, "request", fields)


def _is_failure(status: int) -> bool:
    """Whether it is the service's, not the client's: it broke, or it refused for want of room."""
    return status >= 500 or status == _REFUSED


def _write(level: int, message: str, fields: dict[str, Any]) -> None:
    if logger.isEnabledFor(level):
        # Made here: the logger would look through the stack for its caller, which costs more than the line.
        record = logging.LogRecord(logger.name, level, __file__, 0, message, None, None)
        record.fields = fields
        logger.handle(record)
