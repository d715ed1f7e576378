"""The one place where the service's errors become gRPC's status codes (https://grpc.io/docs/guides/status-codes/)."""

from __future__ import annotations

from typing import Final

from grpc import StatusCode

from service.errors import CLIENT_GONE, ServiceError

_BY_STATUS: Final = {
    200: StatusCode.OK,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.ABORTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    CLIENT_GONE: StatusCode.CANCELLED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


def status_code(error: ServiceError) -> StatusCode:
    """By the status that HTTP has for it."""
    return code_of(error.status)


def code_of(status: int) -> StatusCode:
    """Of HTTP's ``status``; any other fault of the client's is an invalid argument."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return StatusCode.INVALID_ARGUMENT if status < 500 else StatusCode.INTERNAL
