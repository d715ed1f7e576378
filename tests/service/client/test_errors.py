from __future__ import annotations

import re

import httpx

from service.client import errors
from service.client.errors import ClientError


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    kinds = {kind.__name__ for kind in ClientError.__subclasses__()}
    assert set(re.findall(r"-- (\w+)", errors.__doc__ or "")) == kinds


def test_every_error_of_httpx_is_one_of_ours() -> None:
    """`translated` catches the root of what sending raises; a new root of httpx's would be missed."""
    roots = {kind for kind in vars(httpx).values() if isinstance(kind, type) and kind.__bases__ == (Exception,)}
    assert {kind.__name__ for kind in roots} == {"HTTPError", "InvalidURL", "CookieConflict"}
