"""A headless Chromium, and a page in it with an ear for what the browser complains about.

In: the program ``chromium``. Out: the fixture ``browser``, one per module: while Playwright's synchronous side is started,
nothing else in this thread can run an event loop.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from tests.page.fake import DIST

__all__ = ["Seen", "browser", "opened"]


@dataclass
class Seen:
    """A page, where it came from, and what the browser said about it."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def go(self, to: str) -> None:
        self.page.evaluate("to => { location.hash = to }", to)


def opened(context: BrowserContext, address: str) -> Seen:
    """A new page that may ask nobody but ``address``."""
    seen = Seen(context.new_page(), address)
    seen.page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
    seen.page.on("console", lambda said: seen.complaints.append(said.text) if said.type in ("error", "warning") else None)

    def only_there(route: Route) -> None:
        if route.request.url.startswith(address):
            route.continue_()
        else:
            seen.complaints.append(f"asked elsewhere: {route.request.url}")
            route.abort()

    context.route("**/*", only_there)
    return seen


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium: run `make system-deps`")
    assert (DIST / "index.html").is_file(), "the page is not built: run `make page`"
    with sync_playwright() as started:
        # Chromium's own sandbox needs a user who is not root.
        yield started.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
