"""The dashboard's page over a running mesh: the graph of real traffic, a failure that is injected by an edit and becomes visible,
its trace, and an edit that is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.test_walkthrough import Demo, demo, wait_until
from tests.page.chromium import browser, opened

__all__ = ["browser", "demo"]  # fixtures

pytestmark = [pytest.mark.timeout(240), pytest.mark.system("chromium", "curl")]
LONG = 60_000  # ms: reports come every 5 s, the page asks every 5 s, and the machine may be busy
CALL = "workload/default/book-service>service/default/rating"
FAILING = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: rating
  namespace: default
spec:
  hosts: [rating]
  http:
    - fault:
        abort: {httpStatus: 503, percentage: {value: 100}}
      route:
        - destination: {host: rating}
"""


@contextmanager
def traffic(demo: Demo) -> Iterator[None]:
    """A request, and the next when it is answered, until the block ends."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            demo.curl(demo.url)

    thread = threading.Thread(target=ask, name="traffic")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_real_traffic_is_seen_a_failure_shows_and_a_bad_edit_is_refused(demo: Demo, browser: Browser) -> None:
    demo.demo("--detach")
    url = demo.meshctl("dashboard", "--no-open").stdout.strip()
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    seen = opened(context, url.partition("/#")[0])
    page = seen.page
    page.set_default_timeout(LONG)
    call = page.locator(f'[data-choose="{CALL}"]')
    with traffic(demo):
        page.goto(url)
        expect(page.get_by_role("button", name="mesh-admin")).to_be_visible(timeout=LONG)
        for node in ("workload/default/book-service", "service/default/rating", "workload/default/rating-service-v2"):
            expect(page.locator(f'[data-choose="{node}"]')).to_be_visible(timeout=LONG)
        expect(call.locator(".mark-lock")).to_have_count(1, timeout=LONG)
        assert "tone-ok" in (call.get_attribute("class") or "")

        # A text that cannot be: refused, with the field, and nothing is stored.
        seen.go("#/config/new")
        text = page.get_by_label("YAML")
        text.fill(FAILING.replace("503", "9000"))
        page.get_by_role("button", name="Check").click()
        expect(page.locator("[data-verdict=refused]")).to_contain_text("httpStatus", timeout=LONG)
        expect(page.get_by_role("button", name="Apply")).to_be_disabled()
        # The same without the mistake.
        text.fill(FAILING)
        page.get_by_role("button", name="Check").click()
        expect(page.locator(".diff .added").first).to_be_visible(timeout=LONG)
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_text("Applied.")).to_be_visible(timeout=LONG)

        seen.go("#/graph?window=30")
        expect(page.locator(f'.edge.tone-bad[data-choose="{CALL}"]')).to_be_visible(timeout=LONG)

    def failed_trace() -> bool:
        seen.go("#/services")
        seen.go("#/traces?status=error&service=book-service.default")
        page.locator("section[aria-busy=false] .search").wait_for()
        return page.get_by_role("listitem").count() > 0

    wait_until(failed_trace, LONG / 1000, "a trace of what failed")
    page.get_by_role("listitem").get_by_role("link").first.click()
    failed = page.locator(".waterfall li button", has_text="503").first
    failed.click()
    expect(page.get_by_role("complementary")).to_contain_text("503", timeout=LONG)
    assert [line for line in seen.complaints if "favicon" not in line] == []
    context.close()
