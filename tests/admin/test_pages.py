"""The pages, asked over loopback as curl would ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from meshproxy.model.delivery import ORDER
from tests.admin.fakes import Pages, pages


def on_pages(story: Callable[[Pages], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with pages() as found:
            return await story(found)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("why", "status", "ready", "state"),
    [
        ("", 200, "LIVE\n", "LIVE"),
        ("no configuration yet", 503, "PRE_INITIALIZING: no configuration yet\n", "PRE_INITIALIZING"),
        ("draining", 503, "DRAINING: draining\n", "DRAINING"),
    ],
)
def test_readiness(why: str, status: int, ready: str, state: str) -> None:
    async def story(found: Pages) -> None:
        found.sidecar.why = why
        assert (await found.admin.get("/ready"))[:2] == (status, ready)
        for site in (found.health, found.metrics):
            assert (await site.get("/healthz/ready"))[:2] == (status, f"{why}\n" if why else "")
        info = await found.admin.get("/server_info")
        assert (info.status, info.headers["content-type"]) == (200, "application/json")
        assert json.loads(info.body) == {"state": state, "version": "0.1.0", "node": "book-1.default"}

    on_pages(story)


def test_config_dump_whole_and_in_part() -> None:
    async def story(found: Pages) -> None:
        whole = json.loads((await found.admin.get("/config_dump")).body)
        assert [config["kind"] for config in whole["configs"]] == ["cluster", "route"] and whole["version"] == "abc"
        part = json.loads((await found.admin.get("/config_dump?kind=route&name=route-1")).body)
        assert part["configs"] == [{"kind": "route", "resources": [{"name": "route-1", "version": "v", "config": {}}]}]
        none = json.loads((await found.admin.get("/config_dump?name=zzz")).body)
        assert [config["resources"] for config in none["configs"]] == [[], []]
        bad = await found.admin.get("/config_dump?kind=nonsense")
        assert (bad.status, bad.body) == (400, f"kind: must be one of {', '.join(ORDER)}, not 'nonsense'\n")

    on_pages(story)


def test_certs() -> None:
    async def story(found: Pages) -> None:
        answer = await found.admin.get("/certs")
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.body)["certificates"][0]["cert_chain"] == [{"serial_number": "a1"}]

    on_pages(story)


def test_clusters_have_envoys_shape() -> None:
    async def story(found: Pages) -> None:
        cluster = found.sidecar.cluster
        cluster.report(cluster.endpoints[0], 200, False, 0.0)
        cluster.report(cluster.endpoints[1], 503, False, 0.0)
        text = (await found.admin.get("/clusters")).body
        lines = text.splitlines()
        assert lines[:4] == [
            "outbound|80||rating::default_priority::max_connections::3",
            "outbound|80||rating::default_priority::max_pending_requests::4294967295",
            "outbound|80||rating::default_priority::max_requests::4294967295",
            "outbound|80||rating::default_priority::max_retries::4294967295",
        ]
        for line in (
            "outbound|80||rating::outlier::ejections_active::1",
            "outbound|80||rating::10.0.0.1:80::health_flags::healthy",
            "outbound|80||rating::10.0.0.1:80::rq_total::1",
            "outbound|80||rating::10.0.0.1:80::cx_active::0",
            "outbound|80||rating::10.0.0.1:80::hostname::rating-1",
            "outbound|80||rating::10.0.0.2:80::health_flags::/failed_outlier_check",
            "outbound|80||rating::10.0.0.2:80::ejected_for::20",
            "outbound|80||rating::10.0.0.2:80::rq_error::1",
        ):
            assert line in lines
        (status,) = json.loads((await found.admin.get("/clusters?format=json")).body)["clusters"]
        assert [endpoint["health"] for endpoint in status["endpoints"]] == ["healthy", "failed_outlier_check"]

    on_pages(story)


def test_listeners() -> None:
    async def story(found: Pages) -> None:
        assert (await found.admin.get("/listeners")).body == "outbound::127.0.0.1:15001\n"
        answer = json.loads((await found.admin.get("/listeners?format=json")).body)
        assert answer == {"listeners": [{"name": "outbound", "address": "127.0.0.1:15001"}]}

    on_pages(story)


@pytest.mark.parametrize(
    ("query", "status", "body"),
    [
        ("", 200, "cluster.a.upstream_cx_active: 2\ncluster.b.upstream_cx_active: 0\nserver.lag: 0.5\n"),
        ("?usedonly", 200, "cluster.a.upstream_cx_active: 2\nserver.lag: 0.5\n"),
        ("?filter=cluster%5C.b", 200, "cluster.b.upstream_cx_active: 0\n"),
        ("?filter=^server&format=json", 200, '{\n "stats": [\n  {\n   "name": "server.lag",\n   "value": 0.5\n  }\n ]\n}\n'),
        ("?format=prometheus", 200, "a 1\nb 2\n"),
        ("?format=html", 400, "format: must be text, json or prometheus\n"),
        ("?filter=(", 400, "filter: not a good RE2 pattern: missing ): (\n"),
    ],
)
def test_stats(query: str, status: int, body: str) -> None:
    async def story(found: Pages) -> None:
        assert (await found.admin.get(f"/stats{query}"))[:2] == (status, body)

    on_pages(story)


def test_prometheus_on_both_ports() -> None:
    async def story(found: Pages) -> None:
        for site in (found.admin, found.metrics):
            answer = await site.get("/stats/prometheus", accept="application/openmetrics-text")
            assert (answer.status, answer.body) == (200, "a 1\nb 2\n")
            assert answer.headers["content-type"] == "application/openmetrics-text"

    on_pages(story)


def test_the_metrics_port_has_the_apps_too_and_minds_the_scrapers_patience() -> None:
    async def story(found: Pages) -> None:
        for seconds in ("10", "x", "-1", "nan"):
            await found.metrics.get("/stats/prometheus", x_prometheus_scrape_timeout_seconds=seconds)
        await found.metrics.get("/stats/prometheus")
        await found.admin.get("/stats/prometheus")
        assert found.sidecar.calls == ["scrape 8", *["scrape inf"] * 4]

    on_pages(story)


def test_the_log_level_changes_by_post_only() -> None:
    async def story(found: Pages) -> None:
        assert (await found.admin.get("/logging")).body == "active loggers:\n  meshproxy: info\n"
        refused = await found.admin.get("/logging?level=debug")
        assert (refused.status, refused.headers["allow"], found.sidecar.level) == (405, "POST", "info")
        assert (await found.admin.post("/logging?level=debug")).body == "active loggers:\n  meshproxy: debug\n"
        bad = await found.admin.post("/logging?level=loud")
        assert (bad.status, bad.body) == (400, "level: must be one of debug, info, warning, error, critical, not 'loud'\n")
        assert (await found.admin.post("/logging")).status == 400

    on_pages(story)


@pytest.mark.parametrize(("path", "call"), [("/drain", "drain"), ("/quitquitquit", "quit")])
def test_what_changes_something_is_post(path: str, call: str) -> None:
    async def story(found: Pages) -> None:
        for site in (found.admin, found.metrics):
            refused = await site.get(path)
            assert (refused.status, refused.headers["allow"]) == (405, "POST") and "curl -X POST" in refused.body
            assert found.sidecar.calls == []
            assert (await site.post(path)).status == 200
            assert found.sidecar.calls == [call]
            found.sidecar.calls.clear()
        assert (await found.health.post(path)).status == 404

    on_pages(story)


def test_the_index_links_every_page() -> None:
    async def story(found: Pages) -> None:
        answer = await found.admin.get("/")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        for path in (
            "/ready",
            "/server_info",
            "/config_dump",
            "/certs",
            "/clusters",
            "/listeners",
            "/stats",
            "/stats/prometheus",
            "/logging",
        ):
            assert f"<a href='{path}'>" in answer.body
        for path in ("/drain", "/quitquitquit"):
            assert f"<td>{path}</td>" in answer.body

    on_pages(story)


def test_memory() -> None:
    async def story(found: Pages) -> None:
        assert json.loads((await found.admin.get("/memory")).body)["resident"] > 1_000_000

    on_pages(story)
