from __future__ import annotations

import re

import pytest

from service import errors
from service.errors import ImageError, ServiceError


def every(kind: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    return [kind, *(found for sub in kind.__subclasses__() for found in every(sub))]


OURS = [kind for kind in every() if kind.__module__ == errors.__name__]


def test_the_drawn_tree_is_the_real_one() -> None:
    """Name, status, code and Retry-After of each error, and which are below ImageError."""
    drawn = {
        name: (int(status), code, bool(retry))
        for name, status, code, retry in re.findall(r"(\w+) +(\d{3}) (\w+)(, with Retry-After)?", errors.__doc__ or "")
    }
    real = {k.__name__: (k.status, k.code, k.retry_after_s is not None) for k in OURS if k is not ImageError}
    assert drawn == real
    below = re.findall(r"\|   [|`]-- (\w+)", errors.__doc__ or "")
    assert sorted(below) == sorted(kind.__name__ for kind in every(ImageError)[1:])


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in OURS if kind is not ImageError]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", OURS)
def test_every_error_has_an_http_status_and_a_form(kind: type[ServiceError]) -> None:
    assert 400 <= kind.status <= 599
    assert re.fullmatch(r"[a-z_]+", kind.code)
    error = kind("what is wrong")
    assert str(error) == error.message == "what is wrong"
    assert error.as_json() == {"error": {"code": kind.code, "message": "what is wrong"}}
    assert (kind.retry_after_s is not None) == (kind.status in (429, 503))


def test_no_two_names_for_one_thing() -> None:
    assert all(not re.search(r"(Error|Exception)$", kind.__name__) for kind in OURS if kind.__subclasses__() == [])
