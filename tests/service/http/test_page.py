from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from service.http.static import ASSETS
from service.runtime import Runtime
from tests.service.http.conftest import answer, check_error, serve

# What browsers send when an address is opened: Chrome's, Firefox's and Safari's.
BROWSERS = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "text/html",
)
# curl's and httpx', fetch's with JSON in mind, one that likes both the same, one that takes neither, nonsense.
OTHERS = ("*/*", "application/json", "text/html, application/json", "image/png", "", "text/html;q=0, */*", "?")


@pytest.mark.parametrize("accept", BROWSERS)
def test_a_browser_gets_the_page(tiny_root: Path, accept: str) -> None:
    response = answer(tiny_root, "GET", "/", headers={"accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.content == files("service").joinpath("web", "index.html").read_bytes()
    assert response.headers["vary"] == "accept"
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = response.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob: data:"} <= set(policy)
    assert {"connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} <= set(policy)


@pytest.mark.parametrize("accept", OTHERS)
def test_others_get_the_routes(tiny_root: Path, accept: str) -> None:
    response = answer(tiny_root, "GET", "/", headers={"accept": accept})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["vary"] == "accept"
    assert "/v1/classify" in response.json()["routes"]


def test_a_page_that_the_browser_has_is_not_sent_again(tiny_root: Path) -> None:
    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        accept = {"accept": "text/html"}
        first = await client.get("/", headers=accept)
        again = await client.get("/", headers={**accept, "if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content, again.headers["vary"]) == (304, b"", "accept")
        # The routes are another representation, with no tag.
        assert (await client.get("/", headers={"if-none-match": first.headers["etag"]})).status_code == 200

    serve(tiny_root, use)


def test_what_a_link_has_got_appended_does_no_harm_to_the_page(tiny_root: Path) -> None:
    assert answer(tiny_root, "GET", "/?utm_source=x", headers={"accept": "text/html"}).status_code == 200
    check_error(answer(tiny_root, "GET", "/?utm_source=x"), 400, "bad_request")


def web(name: str) -> str:
    return files("service").joinpath("web", name).read_text(encoding="utf-8")


def test_all_that_the_page_loads_is_served() -> None:
    loaded = set(re.findall(r'(?:src|href)="web/([^"]+)"', web("index.html")))
    for name in (asset for asset in ASSETS if asset.endswith(".js")):
        loaded |= set(re.findall(r'from "\./([^"]+)"', web(name))) | set(re.findall(r'fetch\("web/([^"]+)"', web(name)))
    assert {"main.js", "heatmap.js", "ship.jpg"} <= loaded
    assert loaded <= set(ASSETS)


def test_the_page_has_nothing_that_its_policy_forbids() -> None:
    page = web("index.html")
    assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    for text in (page, *(web(name) for name in ASSETS if name.endswith((".js", ".css")))):
        addresses = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
        assert addresses <= {"https://bids.github.io/colormap,"}, "only comments and namespaces name other hosts"


def test_the_ids_that_scripts_look_for_are_on_the_page() -> None:
    page = web("index.html")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    modules = ("main", "card", "compare", "dom", "intake", "models", "status", "theme-toggle")
    wanted = {found for name in modules for found in re.findall(r'byId\("([^"]+)"\)', web(f"{name}.js"))}
    assert len(wanted) > 20
    assert wanted <= set(ids)
