"""Per test a fresh browser context over recorded answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.page.chromium import Seen, browser, opened
from tests.page.fake import Mesh, served

__all__ = ["Look", "browser"]  # the browser is a fixture

expect.set_options(timeout=20_000)
Look = Callable[..., Seen]


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture
def look(browser: Browser, mesh: Mesh) -> Iterator[Look]:
    contexts: list[BrowserContext] = []
    with served(mesh) as address:

        def look(at: str = "#/graph", dark: bool = False, code: str = "good") -> Seen:
            size = {"width": 1280, "height": 800}
            context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light", reduced_motion="reduce")  # type: ignore[arg-type]
            contexts.append(context)
            seen = opened(context, address)
            seen.page.goto(f"{address}/#code={code}")
            if at != "#/graph":
                seen.go(at)
            return seen

        yield look
        for context in contexts:
            context.close()
