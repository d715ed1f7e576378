"""A request's id: the same in its answer, its errors and the log."""

from __future__ import annotations

import os
import re
from typing import Final

from starlette.datastructures import Headers

_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def request_id(headers: Headers) -> str:
    """The client's ``X-Request-ID`` where it is a plain one, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _PLAIN.fullmatch(given) else os.urandom(16).hex()
