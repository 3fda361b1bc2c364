"""A real browser for tests: Debian's Chromium, which plays H.264, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; skips the test where Playwright or Chromium is absent. One at a time, and not beside an event loop."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium command (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        # Containers often lack what its sandbox needs, and the pages are ours.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def watched_page(browser: Any, complaints: list[str], **options: Any) -> Any:
    """A page in a session of its own; errors of its scripts are added to `complaints`."""
    page = browser.new_context(**options).new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    return page


def runs_over(page: Any) -> bool:
    """Whether the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
