"""The page for everyone: by keyboard, by screen reader, on a phone, in the dark; and the view of the state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.end_to_end.browser import PHONE, SHIP, chromium, classified, keep, opened
from tests.end_to_end.conftest import Server, free_port, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def with_a_map(page: Page) -> None:
    page.get_by_role("button", name="Classify the example").click()
    classified(page, 1)
    page.locator(".prediction").first.click()
    expect(page.locator(".card canvas")).to_be_visible()


def see_requests(page: Page, server: Server, count: int) -> None:
    """The state's view, after it has looked, been given ``count`` requests, and looked again."""
    page.locator("nav").get_by_role("link", name="Status").click()
    tile = page.locator(".tile", has_text="Requests a second")
    expect(tile).to_contain_text(" since the start")
    before = int(re.sub(r"\D", "", tile.locator(".note").inner_text()))
    for _ in range(count):
        httpx.post(f"{server.url}/v1/classify", content=SHIP.read_bytes()).raise_for_status()
    expect(tile.locator(".note")).to_have_text(f"{before + count:,} since the start")


# The state


def test_the_state_shows_what_the_metrics_say(browser: Browser, server: Server) -> None:
    with opened(browser, server.url) as page:
        see_requests(page, server, 7)
        assert page.url.endswith("#/status")
        expect(page.locator(".tile", has_text="State")).to_contain_text("Ready")
        expect(page.locator(".tile", has_text="Slots busy")).to_contain_text(re.compile(r"\d of [1-9]"))
        expect(page.locator(".tile", has_text="95 % within")).to_contain_text(re.compile(r"[\d.]+ m?s"))
        latency = page.get_by_role(
            "img", name=re.compile(r"Latency: now p50 [\d.]+ m?s, p95 [\d.]+ m?s, p99 [\d.]+ m?s")
        )
        expect(latency).to_be_visible()
        expect(latency.locator(".line-0").last).to_have_attribute("d", re.compile(r"M[\d.]+ [\d.]+"))
        expect(page.get_by_role("img", name=re.compile("Batch sizes, last minutes: 1: "))).to_be_visible()
        chart = page.locator("figure", has_text="Images a second")
        chart.get_by_text("As a table").click()
        expect(chart.get_by_role("columnheader", name="Seconds ago")).to_be_visible()
        assert chart.get_by_role("row").count() > 1
        expect(page.get_by_role("table").last).to_contain_text("cifar10-resnet16")
        keep(page, "status", full=True)


def test_paused_it_asks_no_more(browser: Browser, server: Server) -> None:
    with opened(browser, f"{server.url}/#/status") as page:
        page.clock.install()  # from here on the test moves the time of the page's timers
        page.reload()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        expect(page.locator(".tile", has_text="State")).to_contain_text("Ready")
        with page.expect_request("**/metrics"):
            page.clock.run_for(2500)
        page.get_by_role("button", name="Pause").click()
        page.wait_for_load_state("networkidle")
        asked.clear()
        page.clock.run_for(9000)
        assert not [url for url in asked if url.endswith("/metrics")]
        page.get_by_role("button", name="Pause").click()
        with page.expect_request("**/metrics"):
            page.clock.run_for(2500)


def test_a_service_that_does_not_answer_is_told(browser: Browser, server: Server) -> None:
    with opened(browser, server.url) as page:
        page.route("**/metrics", lambda route: route.fulfill(status=502, body="a proxy's page"))
        page.goto(f"{server.url}/#/status")
        expect(page.get_by_role("alert")).to_contain_text("502")
        expect(page.locator(".tile", has_text="State")).to_contain_text("No answer")
        page.unroute("**/metrics")
        expect(page.locator(".tile", has_text="State")).to_contain_text("Ready")
        expect(page.locator("#status-notice")).to_be_hidden()


def test_metrics_on_a_port_of_their_own_are_said_to_be_there(browser: Browser) -> None:
    with running(RESNET_METRICS_PORT=str(free_port())) as server, opened(browser, f"{server.url}/#/status") as page:
        page.clock.install()
        page.reload()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        expect(page.locator("#status-lead")).to_contain_text("RESNET_METRICS_PORT")
        expect(page.locator(".tile:visible")).to_contain_text(["Ready"])
        expect(page.locator("#status-notice")).to_be_hidden()
        expect(page.locator("#charts")).to_be_hidden()
        expect(page.get_by_role("link", name="Metrics")).to_be_hidden()
        asked.clear()
        page.clock.run_for(9000)
        assert not [url for url in asked if url.endswith("/metrics")]
        with page.expect_request("**/readyz"):
            page.clock.run_for(2000)


# Keyboard and screen readers


def tab_to(page: Page, selector: str, key: str = "Tab") -> None:
    """Presses ``key`` until the focus is there; it must be seen wherever it comes by."""
    for _ in range(40):
        page.keyboard.press(key)
        reached, seen = page.evaluate(
            """selector => {
                const element = document.activeElement;
                const shown = element.id === "files" ? element.nextElementSibling : element;
                return [element.matches(selector), getComputedStyle(shown).outlineStyle !== "none"];
            }""",
            selector,
        )
        assert seen, "a focus that one cannot see"
        if reached:
            return
    pytest.fail(f"{selector} is not reached by {key}")


def test_all_of_it_works_by_keyboard_alone(browser: Browser, server: Server) -> None:
    with opened(browser, server.url) as page:
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        tab_to(page, "#files")
        # A click that opens no dialog, which nobody could close here.
        page.locator("#files").evaluate(
            "e => { e.onclick = (click) => { click.preventDefault(); document.title = 'asked'; }; }"
        )
        page.keyboard.press("Enter")
        expect(page).to_have_title("asked")
        tab_to(page, "#example")
        page.keyboard.press("Enter")
        classified(page, 1)
        expect(page.locator("#results-title")).to_be_focused()
        tab_to(page, ".compare")
        page.keyboard.press("Space")
        expect(page.locator("#tray")).to_be_visible()
        tab_to(page, ".prediction")
        page.keyboard.press("Enter")
        expect(page.locator(".card canvas")).to_be_visible()
        tab_to(page, "input[type=range]")
        page.keyboard.press("Home")
        expect(page.locator(".card canvas")).to_have_css("opacity", "0")
        tab_to(page, "#tray-close")
        page.keyboard.press("Enter")
        expect(page.locator("#tray")).to_be_hidden()
        expect(page.locator(".compare")).to_be_focused()
        tab_to(page, ".remove")
        page.keyboard.press("Enter")
        expect(page.locator(".card")).to_have_count(0)
        expect(page.locator("#files")).to_be_focused()
        tab_to(page, "#theme", "Shift+Tab")
        page.keyboard.press("Enter")
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
        tab_to(page, "[data-route=status]", "Shift+Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#status-title")).to_be_focused()
        expect(page).to_have_title("Status · ResNet serving")


def test_what_a_screen_reader_finds(browser: Browser, server: Server) -> None:
    with opened(browser, server.url) as page:
        with_a_map(page)
        expect(page.locator("body")).to_match_aria_snapshot("""
            - link "Skip to the content"
            - banner:
              - link "ResNet serving"
              - navigation "Views":
                - link "Classify"
                - link "Status"
                - link "API"
              - status: Ready
              - button /Auto/
            - main:
              - region "What does the network see?":
                - heading "What does the network see?" [level=1]
                - button "Choose pictures"
                - form "Options":
                  - combobox "Model" [disabled]
                  - combobox "Version" [disabled]
                  - combobox "Classes"
                - heading "1 picture" [level=2]
                - button "Remove all"
                - list "1 picture":
                  - listitem:
                    - img "ship.jpg"
                    - img "Map of where ship is seen in ship.jpg"
                    - heading "ship.jpg" [level=3]
                    - button "Compare ship.jpg"
                    - button "Remove ship.jpg"
                    - list "Predictions":
                      - listitem:
                        - button /ship 9\\d\\.\\d %/ [pressed]
                    - status: /Where the network sees ship/
                    - slider "Opacity of the map"
        """)
        unnamed = page.evaluate("""() => [...document.querySelectorAll("button, a, input, select")]
            .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.innerText?.trim() || e.labels?.length))
            .map((e) => e.outerHTML)""")
        assert not unnamed


_CONTRASTS = Path(__file__).with_name("contrasts.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_enough_contrast(browser: Browser, server: Server, scheme: str) -> None:
    """WCAG 2.2 AA, 1.4.3 and 1.4.11, computed from what is drawn."""
    with opened(browser, server.url, color_scheme=scheme) as page:
        keep(page, f"empty-{scheme}")
        with_a_map(page)
        page.set_input_files("#files", [{"name": "no.txt", "mimeType": "text/plain", "buffer": b"no picture"}])
        classified(page, 2)
        found = page.evaluate(_CONTRASTS)
        page.get_by_role("button", name="Remove no.txt").click()
        keep(page, f"card-{scheme}")
        see_requests(page, server, 3)
        found += page.evaluate(_CONTRASTS)
        keep(page, f"status-{scheme}", full=True)
    assert {kind for _, kind, _, _ in found} == {"text", "edge", "mark", "line"}
    assert not [f"{name}: {kind} {ratio:.2f} < {least}" for name, kind, ratio, least in found if ratio < least]


# Looks


def test_the_theme_that_was_chosen_stays(browser: Browser, server: Server) -> None:
    with opened(browser, server.url) as page:
        body = page.locator("body")
        light = body.evaluate("e => getComputedStyle(e).backgroundColor")
        button = page.get_by_role("button", name=re.compile("Theme:"))
        button.click()
        button.click()
        expect(button).to_contain_text("Dark")
        assert body.evaluate("e => getComputedStyle(e).backgroundColor") != light
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        button.click()
        assert body.evaluate("e => getComputedStyle(e).backgroundColor") == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, server: Server, scheme: str) -> None:
    with opened(browser, server.url, **PHONE, color_scheme=scheme) as page:
        wide = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(wide)
        with_a_map(page)
        page.get_by_role("button", name="Compare ship.jpg").click()
        assert not page.evaluate(wide)
        keep(page, f"phone-{scheme}")
        small = page.evaluate("""() => [...document.querySelectorAll("button, select, nav a, label.primary")]
            .filter((e) => e.checkVisibility()).map((e) => [e.outerHTML, e.getBoundingClientRect()])
            .filter(([, r]) => r.width < 24 || r.height < 24).map(([html]) => html)""")
        assert not small, "targets under 24 pixels (WCAG 2.2, 2.5.8)"
        see_requests(page, server, 1)
        assert not page.evaluate(wide)
        keep(page, f"phone-status-{scheme}", full=True)


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_who_wants_no_motion_gets_none(browser: Browser, server: Server, motion: str) -> None:
    with opened(browser, server.url, reduced_motion=motion) as page:
        page.get_by_role("button", name="Classify the example").click()
        classified(page, 1)
        animation = page.locator(".fill").first.evaluate("e => getComputedStyle(e).animationName")
        assert animation == ("none" if motion == "reduce" else "grow")
