from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from service.http.routing import Call
from service.http.static import ASSETS, CONTENT_TYPES, StaticFile
from tests.service.http.conftest import answer, check_error


def a_call(**headers: str) -> Call:
    async def receive() -> dict[str, object]:
        raise AssertionError("a file's request has no body")

    return Call("GET", Headers({k.replace("_", "-"): v for k, v in headers.items()}), b"", receive, 0.0, "an-id")


def test_a_file_comes_with_its_type_and_what_keeps_it_safe() -> None:
    got = StaticFile("page.html", b"<!doctype html>").answer(a_call(), (b"vary", b"accept"))
    headers = dict([*got.headers, *got.policy])
    assert (got.status, got.body) == (200, b"<!doctype html>")
    assert headers[b"content-type"] == b"text/html; charset=utf-8"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert headers[b"cache-control"] == b"no-cache"
    assert headers[b"vary"] == b"accept"
    policy = dict(part.split(" ", 1) for part in headers[b"content-security-policy"].decode().split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert not any("http" in sources or "unsafe" in sources or "*" in sources for sources in policy.values())


@pytest.mark.parametrize("form", ["{}", "W/{}", '"another", {}', "*"])
def test_a_file_that_the_client_has_is_not_sent_again(form: str) -> None:
    file = StaticFile("a.js", b"1")
    etag = dict(file.answer(a_call()).headers)[b"etag"].decode()
    again = file.answer(a_call(if_none_match=form.format(etag)))
    assert (again.status, again.body) == (304, b"")
    assert dict(again.headers)[b"etag"].decode() == etag


def test_a_changed_file_is_sent_again() -> None:
    old = dict(StaticFile("a.js", b"1").answer(a_call()).headers)[b"etag"].decode()
    assert StaticFile("a.js", b"2").answer(a_call(if_none_match=old)).status == 200


def test_every_asset_is_served_as_it_lies_in_the_package(tiny_root: Path) -> None:
    for name in ASSETS:
        response = answer(tiny_root, "GET", f"/web/{name}")
        assert response.status_code == 200
        assert response.content == files("service").joinpath("web", name).read_bytes()
        assert response.headers["content-type"] == CONTENT_TYPES[name.rpartition(".")[2]]


@pytest.mark.parametrize(
    "name", ["..%2Fapp.py", "%2Fetc%2Fpasswd", "%2E%2E", "docs.html", "DOCS.JS", "docs.js%00", "no.js"]
)
def test_nothing_else_is_served(tiny_root: Path, name: str) -> None:
    check_error(answer(tiny_root, "GET", f"/web/{name}"), 404, "not_found")
