from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from tests.service.http.conftest import answer, check_error


def test_the_page_shows_the_document_and_loads_nothing_from_elsewhere(tiny_root: Path) -> None:
    response = answer(tiny_root, "GET", "/docs")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    for name in re.findall(r'(?:src|href)="web/([^"]+)"', response.text):
        assert answer(tiny_root, "GET", f"/web/{name}").status_code == 200
    texts = [files("service").joinpath("web", name).read_text() for name in ("docs.html", "docs.js", "docs.css")]
    assert not [text for text in texts if re.search(r'https?://|innerHTML|eval\(| on\w+="', text)]


def test_the_document_is_kept_by_its_etag_and_takes_no_query(tiny_root: Path) -> None:
    etag = answer(tiny_root, "GET", "/openapi.json").headers["etag"]
    assert answer(tiny_root, "GET", "/openapi.json", headers={"if-none-match": etag}).status_code == 304
    check_error(answer(tiny_root, "GET", "/openapi.json?verbose=1"), 400, "bad_request")
    check_error(answer(tiny_root, "GET", "/docs?verbose=1"), 400, "bad_request")
