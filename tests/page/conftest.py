"""One headless Chromium for the folder; per test a fresh context, recorded answers, an ear for the browser's complaints."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from tests.page.fake import DIST, Mesh, served

expect.set_options(timeout=20_000)


@dataclass
class Seen:
    """A page that is signed in, what it is told, and what the browser said about it."""

    page: Page
    mesh: Mesh
    address: str
    complaints: list[str] = field(default_factory=list)

    def go(self, to: str) -> None:
        self.page.evaluate("to => { location.hash = to }", to)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium: run `make system-deps`")
    assert (DIST / "index.html").is_file(), "the page is not built: run `make page`"
    with sync_playwright() as started:
        # Chromium's own sandbox needs a user who is not root.
        yield started.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


Look = Callable[..., Seen]


@pytest.fixture
def look(browser: Browser, mesh: Mesh) -> Iterator[Look]:
    contexts: list[BrowserContext] = []
    with served(mesh) as address:

        def opened(at: str = "#/graph", dark: bool = False, code: str = "good") -> Seen:
            scheme = "dark" if dark else "light"
            context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            contexts.append(context)
            seen = Seen(context.new_page(), mesh, address)
            seen.page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
            seen.page.on("console", lambda said: seen.complaints.append(said.text) if said.type in ("error", "warning") else None)

            def only_here(route: Route) -> None:
                if route.request.url.startswith(address):
                    route.continue_()
                else:
                    seen.complaints.append(f"asked elsewhere: {route.request.url}")
                    route.abort()

            context.route("**/*", only_here)
            seen.page.goto(f"{address}/#code={code}")
            if at != "#/graph":
                seen.go(at)
            return seen

        yield opened
        for context in contexts:
            context.close()
