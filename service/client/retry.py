"""When to ask again: after failures that may pass, ever later, and never earlier than the service says."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from service.client.errors import ClientError

_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Retry:
    """``retries`` more attempts. Pauses, in seconds, double from ``first_pause_s`` to ``max_pause_s``, less up to half
    by chance, so that clients refused together do not come back together. A service that asks for more than
    ``max_wait_s`` is not waited for.
    """

    retries: int = 4
    first_pause_s: float = 0.5
    max_pause_s: float = 30.0
    max_wait_s: float = 120.0

    def pause_s(self, error: ClientError, failures: int) -> float | None:
        """How long to wait after the ``failures``-th failure in a row; None to give up."""
        asked = error.retry_after_s or 0.0
        if not error.may_pass or failures > self.retries or asked > self.max_wait_s:
            return None
        # The exponent is bounded: 2.0**1024 is an error.
        doubled: float = min(self.max_pause_s, self.first_pause_s * 2.0 ** min(failures - 1, 64))
        return asked + doubled * random.uniform(0.5, 1)  # noqa: S311 - no secret hangs on it  # nosec B311


def retry_after_s(header: str | None, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date; None where it is neither.

    ``now`` is the time in seconds since 1970, this machine's if None.
    """
    text = (header or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        until = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, until - (time.time() if now is None else now))
