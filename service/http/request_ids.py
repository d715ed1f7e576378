"""A request's id: the same in its answer, its errors and the log."""

from __future__ import annotations

import os

from starlette.datastructures import Headers

from service.logs.request_log import plain_id


def request_id(headers: Headers) -> str:
    """The client's ``X-Request-ID`` where it is a plain one, else a new one."""
    return plain_id(headers.get("x-request-id", "")) or new_id()


def new_id() -> str:
    """One that no request had."""
    return os.urandom(16).hex()
