"""Pages in a real browser: Debian's chromium, driven by playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# No GPU, no sandbox as root, and nothing that asks the network by itself.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Opened:
    """A page that is open, with everything it complained about or asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path) -> None:
        """Opens a file and waits until its figures can be drawn."""
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready=figures]", state="attached", timeout=60_000)

    def draw(self) -> None:
        """Scrolls to everything that is shown, so that it is drawn."""
        for place in self.page.locator(".plot").all():
            if place.is_visible():
                place.scroll_into_view_if_needed()
                place.and_(self.page.locator("[data-drawn]")).wait_for(timeout=60_000)

    def rows(self, table: str) -> list[str]:
        """The first cells of the rows of a table that are shown."""
        found = self.page.locator(f"#table-{table} tbody tr:not([hidden]) > th")
        return [str(text).strip() for text in found.all_inner_texts()]


@contextmanager
def started_browser() -> Iterator[Any]:
    """Starts a browser with a profile of its own; skips where there is none.

    One at a time: playwright takes a second one for a mistake.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def browser_page(browser: Any, **options: Any) -> Iterator[Opened]:
    """Opens an empty page without anything that another page has left."""
    context = browser.new_context(**options)
    try:
        yield Opened(context.new_page())
    finally:
        context.close()
