"""The page in headless Chromium over recorded answers: what it shows, asks and refuses; quick, steady, accessible."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.page.conftest import Look
from tests.page.fake import AT, Mesh, edge, node

pytestmark = pytest.mark.system("chromium")

BROKEN = "workload/default/productpage-v1>workload/default/reviews-v3"
TRACE = "#/traces/00000000000000000000000000000001"
VIEWS = (
    "#/graph",
    "#/graph?as=table",
    "#/graph?labels=latency&at=" + BROKEN.replace("/", "%2F").replace(">", "%3E"),
    "#/services",
    "#/workloads",
    "#/node/workload/default/productpage-v1",
    "#/traces",
    TRACE + "?span=6",
    "#/config",
    "#/config?show=proxies",
    "#/config/VirtualService/default/reviews",
    "#/config/new",
)


def test_the_code_leaves_the_address_and_is_good_once(look: Look, mesh: Mesh) -> None:
    first = look()
    expect(first.page.get_by_role("button", name="ann")).to_be_visible()
    assert first.page.url == f"{first.address}/#/graph"
    assert first.page.evaluate("history.length") <= 2  # about:blank and this: no way back to the code

    mesh.signed_in = False
    second = look()
    expect(second.page.get_by_role("heading")).to_have_text("That link was used already, or is older than a minute.")
    assert "meshctl dashboard" in second.page.inner_text("main")
    assert "good" not in second.page.url


def test_the_graph_shows_who_calls_whom_and_how_that_goes(look: Look) -> None:
    seen = look()
    expect(seen.page.locator(".node")).to_have_count(8)
    expect(seen.page.locator(".edge")).to_have_count(8)
    broken = seen.page.locator(f'[data-choose="{BROKEN}"]')
    assert broken.get_attribute("aria-label") == (
        "productpage-v1 calls reviews-v3, 4.10 per second, 8.1 % errors, p95 11.8 ms, mutual TLS, circuit breaker open"
    )
    assert "tone-bad" in (broken.get_attribute("class") or "")
    expect(broken.locator(".mark-lock")).to_have_count(1)
    expect(broken.locator(".mark-breaker")).to_have_count(1)
    expect(seen.page.locator(".mark-ejected")).to_have_count(1)
    expect(seen.page.locator(".mark-open")).to_have_count(1)

    broken.locator(".label").click()
    side = seen.page.get_by_role("complementary")
    expect(side.get_by_role("heading", level=2)).to_have_text("productpage-v1 → reviews-v3")
    expect(side.locator("canvas")).to_have_count(3)
    assert "breaker open" in side.inner_text()
    seen.page.keyboard.press("Escape")
    expect(side).to_have_count(0)


def test_numbers_change_and_nothing_moves(look: Look, mesh: Mesh) -> None:
    seen = look()
    expect(seen.page.locator(".node")).to_have_count(8)
    seen.page.evaluate(
        "window.shift = 0; new PerformanceObserver(list => { for (const one of list.getEntries()) window.shift += one.value })"
        ".observe({type: 'layout-shift', buffered: false})"
    )
    places = "[...document.querySelectorAll('.node')].map(one => one.getAttribute('transform'))"
    before = seen.page.evaluate(places)
    mesh.edges[2] |= {"rps": 4321.0, "errorShare": 0.5, "errors": 9}
    expect(seen.page.locator(".edge.tone-bad")).to_have_count(2)
    assert seen.page.evaluate(places) == before
    assert seen.page.evaluate("window.shift") == 0


def test_a_namespace_and_a_window_narrow_the_graph(look: Look) -> None:
    seen = look()
    seen.page.get_by_label("Namespace").select_option("default")
    expect(seen.page.locator(".node")).to_have_count(6)
    seen.page.get_by_label("Time window").select_option("300")
    expect(seen.page.locator(".node")).to_have_count(6)
    expect(seen.page).to_have_url(re.compile("window=300"))
    with seen.page.expect_request(re.compile("graph.*window=300.*namespace=default")):
        pass


def test_everything_is_reached_by_keyboard(look: Look) -> None:
    seen = look()
    page = seen.page
    expect(page.locator(".node")).to_have_count(8)
    for key, title in (("s", "Services"), ("w", "Workloads"), ("t", "Traces"), ("c", "Configuration"), ("g", "Graph")):
        page.keyboard.press(key)
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("reviews")
    expect(page.locator(".node:not(.faint)")).to_have_count(3)
    page.keyboard.press("Escape")
    page.locator(f'[data-choose="{BROKEN}"]').focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary")).to_be_visible()
    page.keyboard.press("d")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.keyboard.press("p")
    expect(page.get_by_text("paused")).to_be_visible()
    page.keyboard.press("w")
    expect(page.locator("tbody tr")).to_have_count(7)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("gateway")


def test_a_workload_tells_its_signals_who_may_call_and_what_applies(look: Look) -> None:
    seen = look("#/workloads")
    seen.page.get_by_role("link", name="productpage-v1").click()
    expect(seen.page.locator("canvas")).to_have_count(3)
    expect(seen.page.get_by_role("region", name="Called by").locator("tbody tr")).to_have_count(1)
    text = seen.page.inner_text("main")
    assert "ALLOW default/sa/productpage" in text
    seen.page.get_by_role("button", name="outbound").click()
    expect(seen.page.get_by_role("region", name="Calls").locator("tbody tr")).to_have_count(4)
    seen.page.get_by_role("link", name="VirtualService/default/reviews").click()
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("VirtualService/default/reviews")


def test_from_a_spike_to_its_traces(look: Look) -> None:
    seen = look("#/node/workload/default/productpage-v1")
    plot = seen.page.locator(".u-over").first
    expect(plot).to_be_visible()
    box = plot.bounding_box()
    assert box is not None
    seen.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 20)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 20, steps=4)
    seen.page.mouse.up()
    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Traces")
    found = re.search(r"from=(\d+)&to=(\d+)", seen.page.url)
    assert found is not None and "service=productpage.default" in seen.page.url
    start, end = int(found[1]), int(found[2])
    assert AT - 900 < start < end < AT
    assert 0.1 * 900 < end - start < 0.3 * 900


def test_a_trace_is_found_and_opens(look: Look, mesh: Mesh) -> None:
    seen = look("#/traces")
    page = seen.page
    expect(page.get_by_role("listitem")).not_to_have_count(0)
    page.get_by_label("Status").select_option("error")
    page.get_by_label("Longer than (ms)").fill("15")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("listitem")).to_have_count(4)
    assert any("status=error" in one and "minDuration=15" in one for one in mesh.asked)
    page.get_by_role("listitem").get_by_role("link").first.click()
    expect(page.locator(".waterfall li")).to_have_count(7)
    page.get_by_role("button", name="reviews.default ratings.default:9080/*, 28.0 ms, failed").click()
    side = page.get_by_role("complementary")
    assert "http.status_code" in side.inner_text() and "503" in side.inner_text()
    side.get_by_role("link", name="503").click()
    expect(page).to_have_url(re.compile(r"tag=http\.status_code%3D503"))


def test_a_bad_edit_is_refused_and_a_good_one_is_seen_before_it_is_applied(look: Look, mesh: Mesh) -> None:
    seen = look("#/config")
    page = seen.page
    page.get_by_role("link", name="reviews", exact=True).click()
    page.get_by_role("button", name="Edit", exact=True).click()
    text = page.get_by_label("YAML")
    original = text.input_value()
    text.fill(original.replace("weight: 75", "weight: 7x"))
    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    page.get_by_role("button", name="Check").click()
    verdict = page.locator("[data-verdict=refused]")
    expect(verdict).to_contain_text("spec.http[0].route[0].weight: must be a whole number")
    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    assert mesh.applied == []

    text.fill(original.replace("weight: 75", "weight: 80"))
    page.get_by_role("button", name="Check").click()
    expect(page.locator(".diff .added")).to_contain_text("weight: 80")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text("Applied.")).to_be_visible()
    expect(page.locator("pre.code")).to_contain_text("weight: 80")
    assert len(mesh.applied) == 1


def test_what_was_changed_after_the_check_cannot_be_applied(look: Look) -> None:
    seen = look("#/config/new")
    seen.page.get_by_role("button", name="Check").click()
    expect(seen.page.get_by_role("button", name="Apply")).to_be_enabled()
    seen.page.get_by_label("YAML").press("Space")
    expect(seen.page.get_by_role("button", name="Apply")).to_be_disabled()


def test_who_may_only_look_is_offered_no_edit(look: Look, mesh: Mesh) -> None:
    mesh.role = "view"
    seen = look("#/config/VirtualService/default/reviews")
    expect(seen.page.get_by_text("Your role is view: editing needs edit.")).to_be_visible()
    expect(seen.page.get_by_role("button", name="Edit", exact=True)).to_have_count(0)


def test_what_is_empty_or_fails_says_what_to_do(look: Look, mesh: Mesh) -> None:
    mesh.nodes, mesh.edges, mesh.traces = [], [], []
    seen = look()
    expect(seen.page.get_by_role("heading", name="Nothing moves yet")).to_be_visible()
    seen.go("#/traces")
    expect(seen.page.get_by_role("heading", name="No trace matches")).to_be_visible()
    seen.go("#/config/VirtualService/default/gone")
    expect(seen.page.get_by_role("heading", name="There is no VirtualService/default/gone")).to_be_visible()
    seen.go("#/node/workload/default/gone")
    expect(seen.page.get_by_role("button", name="Try again")).to_be_visible()
    seen.go("#/nowhere")
    expect(seen.page.get_by_role("heading", name="There is no such page")).to_be_visible()
    mesh.signed_in = False
    seen.go("#/services")
    expect(seen.page.get_by_role("heading", name="Your session has ended.")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_view_is_accessible_and_keeps_the_strict_policy(look: Look, dark: bool) -> None:
    seen = look(dark=dark)
    axe = Axe()
    found: list[str] = []
    for view in VIEWS:
        seen.go(view)
        expect(seen.page.locator(".loading")).to_have_count(0)
        expect(seen.page.get_by_role("heading", level=1)).to_have_count(1)
        for violation in axe.run(seen.page).response["violations"]:
            places = [" ".join(map(str, one["target"])) for one in violation["nodes"]][:3]
            found.append(f"{view}: {violation['id']} ({violation['help']}) {places}")
    assert found == []
    assert seen.complaints == []


def test_dots_lead_to_one_trace_or_to_those_of_a_time(look: Look) -> None:
    seen = look("#/traces")
    page = seen.page
    plot = page.locator(".dots .u-over")
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 40, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"#/traces\?from=\d+&to=\d+$"))
    expect(page.get_by_role("button", name="any time")).to_be_visible()
    expect(page.locator(".view[aria-busy=false] .dots .u-over")).to_be_visible()
    plot.hover()
    expect(page.locator(".dots figcaption")).to_contain_text("click to open")
    plot.click()
    expect(page.locator(".waterfall li")).to_have_count(7)
    page.locator(".waterfall li button").first.click()
    expect(page.get_by_role("complementary")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary")).to_have_count(0)


def test_what_is_chosen_stands_out_with_what_it_touches(look: Look) -> None:
    seen = look("#/graph?at=workload/default/details-v1")
    expect(seen.page.locator(".node:not(.faint)")).to_have_count(3)
    expect(seen.page.locator(".edge:not(.faint)")).to_have_count(2)
    seen.page.keyboard.press("Escape")
    expect(seen.page.locator(".faint")).to_have_count(0)


def test_an_address_shows_to_others_what_it_shows_here_and_back_goes_back(look: Look) -> None:
    seen = look("#/graph?namespace=default&window=300")
    page = seen.page
    expect(page.locator(".node")).to_have_count(6)
    page.locator(f'[data-choose="{BROKEN}"]').locator(".label").click()
    expect(page.get_by_role("complementary")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("complementary")).to_have_count(0)
    page.get_by_role("link", name="Workloads").click()
    expect(page).to_have_url(re.compile(r"#/workloads\?namespace=default&window=300"))
    expect(page.locator("tbody tr")).to_have_count(6)
    page.get_by_label("Namespace").select_option("")
    expect(page.locator("tbody tr")).to_have_count(7)
    page.keyboard.press("g")
    expect(page).to_have_url(re.compile(r"#/graph\?window=300"))
    page.go_back()
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(6)


def test_when_control_is_gone_the_page_says_so_and_goes_on_when_it_is_back(look: Look, mesh: Mesh) -> None:
    seen = look()
    page = seen.page
    expect(page.locator(".node")).to_have_count(8)
    page.context.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text("Control has not answered since")
    expect(page.get_by_text("offline")).to_be_visible()
    expect(page.locator(".node")).to_have_count(8)
    mesh.nodes.append(node("workload/default/late-v1"))
    page.context.set_offline(False)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".node")).to_have_count(9)


def test_traces_are_looked_for_by_what_spans_say(look: Look, mesh: Mesh) -> None:
    """Of a workload by its app and version, of a service by the host that is called, of a call by both."""
    service = "service/default/ratings"
    mesh.nodes.append(node(service))
    mesh.edges += [edge("workload/default/reviews-v2", service, 1.0)]
    seen = look("#/node/service/default/ratings")
    seen.page.get_by_role("link", name="Traces", exact=True).last.click()
    expect(seen.page).to_have_url(re.compile(r"operation=ratings\.default\.svc$"))
    seen.go("#/node/workload/default/reviews-v2")
    seen.page.locator(".bar").get_by_role("link", name="Traces").click()
    expect(seen.page).to_have_url(re.compile(r"service=reviews\.default&tag=istio\.canonical_revision%3Dv2"))
    seen.go(f"#/graph?at=workload/default/reviews-v2>{service}")
    seen.page.get_by_role("complementary").get_by_role("link", name="Traces", exact=True).click()
    expect(seen.page).to_have_url(re.compile("operation=ratings.default.svc&service=reviews.default"))


def test_names_are_text_whatever_they_say(look: Look, mesh: Mesh) -> None:
    bad = "<img src=x onerror=alert(1)>"
    mesh.nodes.append({**node("workload/default/a-v1"), "name": bad})
    mesh.workloads[0] |= {"name": bad, "policies": [bad]}
    for one in mesh.traces:
        one |= {
            "root": {"service": bad, "operation": bad},
            "services": [bad],
            "method": bad,
            "url": f"http://a/{bad}",
            "code": 200,
        }
    mesh.resources[0] |= {"yaml": bad, "findings": [{"code": bad, "level": "Warning", "message": bad}], "nodes": [bad]}
    mesh.proxies[0] |= {"name": bad, "problem": bad}
    spans = mesh.spans

    def evil(trace_id: str) -> list[dict[str, Any]]:
        return [{**one, "service": bad, "operation": bad, "tags": {bad: bad, "http.url": bad}} for one in spans(trace_id)]

    mesh.spans = evil  # type: ignore[method-assign]
    seen = look()
    views = ("#/graph", f"#/graph?find={bad}", "#/workloads", "#/traces", TRACE + "?span=6", "#/config", "#/config?show=proxies")
    for view in (*views, "#/config/VirtualService/default/reviews", f"#/config/{bad}", f"#/node/{bad}", f"#/{bad}"):
        seen.go(view)
        expect(seen.page.locator(".loading")).to_have_count(0)
        expect(seen.page.locator("main")).to_contain_text("no such" if view.endswith(f"#/{bad}") else re.compile(r"\S"))
        assert seen.page.locator("img").count() == 0, view
    assert [one for one in seen.complaints if "404" not in one] == []


def test_200_nodes_and_10000_traces_stay_quick(look: Look, mesh: Mesh) -> None:
    names = [f"workload/ns{at % 8}/service-{at:03d}-v1" for at in range(200)]
    mesh.nodes = [node(name) for name in names]
    mesh.edges = [edge(names[at], names[(at * 7 + step) % 200], at / 9 + step) for at in range(200) for step in (1, 13)]
    mesh.traces = [{**mesh.traces[at % 40], "traceId": f"{at:032x}", "start": AT - at} for at in range(10_000)]
    seen = look()
    expect(seen.page.locator(".node")).to_have_count(200)
    expect(seen.page.locator(".edge")).to_have_count(400)
    # The thread is free while the worker lays out and after: a frame is drawn when it is asked for.
    frame = (
        "() => new Promise(done => { const at = performance.now(); requestAnimationFrame(() => done(performance.now() - at)) })"
    )
    assert seen.page.evaluate(frame) < 1000
    seen.go("#/traces?limit=10000")
    expect(seen.page.get_by_text("10000 traces")).to_be_visible()
    rows: Any = seen.page.get_by_role("listitem")
    assert rows.count() < 80
    seen.page.locator(".rows-frame").evaluate("one => { one.scrollTop = one.scrollHeight }")
    expect(seen.page.locator('[aria-posinset="10000"]')).to_be_visible()
    assert rows.count() < 80
