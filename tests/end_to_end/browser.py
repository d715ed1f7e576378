"""A real Chromium before the page: found on the machine, started without a network of its own, listened to."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.end_to_end.conftest import ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"
SHIP = ROOT / "docs" / "images" / "ship.jpg"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# No sandbox: it cannot be had as root in a container, and only pages of this service are opened.
_ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running Chromium; skips the test where the machine has none."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is installed (make system-tools installs chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class _Complaints:
    """What the page's console says is wrong: exceptions, violations of the policy, files that are missing."""

    def __init__(self, page: Page) -> None:
        self.texts: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.texts.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        # Chromium reports every request that is refused; what the API refuses is the page's to tell, and tested.
        refused = "/web/" not in message.location["url"] and message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not refused:
            self.texts.append(message.text)


@contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """The page at ``url`` when its models are known; fails at the end where the console complained."""
    context = {
        "viewport": {"width": 1280, "height": 900},
        "color_scheme": "light",
        "reduced_motion": "reduce",
    } | context
    with browser.new_context(**context) as made:
        made.set_default_timeout(20_000)
        page = made.new_page()
        complaints = _Complaints(page)
        page.goto(url)
        page.wait_for_selector("#model option[value]", state="attached")
        yield page
        assert not complaints.texts, "\n".join(complaints.texts)


def classified(page: Page, cards: int) -> None:
    """Returns when there are ``cards`` and none of them waits."""
    page.wait_for_selector(f".card[aria-busy=false] >> nth={cards - 1}")
    assert page.locator(".card").count() == cards
    assert page.locator(".card[aria-busy=true]").count() == 0


def drawn(page: Page) -> Image.Image:
    """The first card's heatmap, RGBA."""
    url: str = page.locator(".card canvas").first.evaluate("canvas => canvas.toDataURL('image/png')")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def keep(page: Page, name: str, *, full: bool = False) -> Path:
    """A screenshot of the page, for people to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=full, animations="disabled")
    return path
