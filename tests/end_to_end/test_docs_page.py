"""`/docs` in a browser: it shows every operation, asks nobody else, and breaks none of its own content policy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from tests.end_to_end.conftest import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to open the page with")


class Opened:
    """The page in a window, and what it asked for and complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{url}/docs")
        page.wait_for_selector("details.operation")


@pytest.fixture(params=[("light", 1280), ("dark", 390)], ids=["desktop", "phone"])
def opened(server: Server, request: pytest.FixtureRequest) -> Iterator[Opened]:
    scheme, width = request.param
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        yield Opened(page, server.url)
        browser.close()


def test_every_operation_is_shown(opened: Opened, client: httpx.Client) -> None:
    spec = client.get("/openapi.json").json()
    names = [operation["operationId"] for methods in spec["paths"].values() for operation in methods.values()]
    assert sorted(opened.page.locator("details.operation").evaluate_all("all => all.map(one => one.id)")) == sorted(
        names
    )
    for name in names:
        operation = opened.page.locator(f"#{name}")
        operation.locator("summary").first.click()
        assert operation.locator(".curl pre").inner_text().startswith("curl ")
    text = opened.page.inner_text("main")
    assert "[object" not in text
    assert "undefined" not in text
    assert "multipart/form-data" in text
    assert "X-Request-ID" in text
    wide: Any = opened.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "the page itself scrolls to the side"
    assert all(url.startswith(str(client.base_url)) for url in opened.requests)
    assert opened.complaints == []


def test_an_operation_can_be_linked_to_and_tried(opened: Opened, client: httpx.Client) -> None:
    page = opened.page
    page.goto(f"{client.base_url}/docs#get_v1_models")
    page.wait_for_selector("#get_v1_models[open]")
    page.get_by_text("Try it").locator("visible=true").click()
    page.get_by_role("button", name="Send").locator("visible=true").click()
    answer = page.locator("#get_v1_models form + div pre")
    answer.wait_for()
    assert client.get("/v1/models").json()["models"][0]["name"] in answer.inner_text()
    assert opened.complaints == []
