"""The page in a real browser, where the service asks for a key."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from service.access.keys import line_of
from tests.end_to_end.browser import SHIP, chromium
from tests.end_to_end.conftest import running

pytestmark = pytest.mark.slow

KEY = "resnet_" + "k" * 43


def test_the_page_asks_for_the_key_and_keeps_it_in_its_tab() -> None:
    with (
        running(RESNET_API_KEYS=line_of("page", KEY)) as server,
        chromium() as browser,
        browser.new_context() as context,
    ):
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("#key-note")).to_have_text("This service needs a key.")
        page.fill("#key", "wrong")
        page.press("#key", "Enter")
        expect(page.locator("#key-note")).to_have_text("The service does not know this key.")
        page.set_input_files("#files", SHIP)
        page.fill("#key", KEY)
        page.click("#key-form button")
        expect(page.locator("#key-form")).to_be_hidden()
        expect(page.locator(".card .label").first).to_have_text("ship")
        assert page.input_value("#key") == ""
        page.locator(".card .prediction").first.click()
        expect(page.locator(".card canvas")).to_be_visible()

        page.reload()
        page.wait_for_selector("#model option[value]", state="attached")
        expect(page.locator("#key-form")).to_be_hidden()
        kept = page.evaluate(
            "[JSON.stringify({...localStorage}), document.cookie, location.href, document.body.innerHTML]"
        )
        assert KEY not in "".join(kept)

        page.goto(f"{server.url}/docs#get_v1_models")
        page.locator("#get_v1_models summary", has_text="Try it").click()
        page.locator("#get_v1_models form button").click()
        expect(page.locator("#get_v1_models form + div")).to_contain_text(re.compile("^200"))

        other = context.new_page()  # another tab has it not
        other.goto(server.url)
        expect(other.locator("#key-form")).to_be_visible()
