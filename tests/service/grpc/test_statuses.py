from __future__ import annotations

import pytest
from grpc import StatusCode

from service import errors
from service.errors import ServiceError
from service.grpc.statuses import status_code
from tests.service.test_errors import OURS


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.BadRequest, StatusCode.INVALID_ARGUMENT),
        (errors.TooManyImages, StatusCode.INVALID_ARGUMENT),
        (errors.NotAnImage, StatusCode.INVALID_ARGUMENT),
        (errors.BadImage, StatusCode.INVALID_ARGUMENT),
        (errors.UnknownModel, StatusCode.NOT_FOUND),
        (errors.SlowClient, StatusCode.ABORTED),
        (errors.Overloaded, StatusCode.RESOURCE_EXHAUSTED),
        (errors.NotReady, StatusCode.UNAVAILABLE),
        (errors.ShuttingDown, StatusCode.UNAVAILABLE),
        (errors.DeadlineExceeded, StatusCode.DEADLINE_EXCEEDED),
        (errors.InferenceFailed, StatusCode.INTERNAL),
        (ServiceError, StatusCode.INTERNAL),
    ],
)
def test_status_codes(kind: type[ServiceError], code: StatusCode) -> None:
    assert status_code(kind("what is wrong")) is code


@pytest.mark.parametrize("kind", OURS)
def test_a_client_is_told_whose_fault_it_is(kind: type[ServiceError]) -> None:
    of_service = {StatusCode.INTERNAL, StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED}
    assert (status_code(kind("")) in of_service) == (kind.status >= 500)
