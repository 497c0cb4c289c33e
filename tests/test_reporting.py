"""What a configuration's Telemetry changes in a composed sidecar, and what it tells control, by itself and with workers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from meshproxy import reporting
from meshproxy.agent.client import Agent
from meshproxy.agent.tasks import spawn
from meshproxy.app import Sidecar
from meshproxy.bootstrap import AppPage, parse
from meshproxy.ending import Plan
from meshproxy.message.head import RequestHead
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.base import encode, fingerprint
from meshproxy.model.delivery import Push, Resource
from meshproxy.model.report import Report
from meshproxy.model.telemetry import AccessLog, MetricOverride, TagOverride, Telemetry
from meshproxy.telemetry.report import Counted, Deltas
from meshproxy.traffic import Local, Shared
from tests.e2e.support.sockets import own_address
from tests.test_app import HOST, bootstrap, config, push, run


def with_telemetry(telemetry: Telemetry | None, version: str, nonce: str = "n") -> Push:
    made = push(config(), version, nonce)
    if telemetry is None:
        return made
    body = encode(telemetry)
    return msgspec.structs.replace(
        made, set=(*made.set, Resource(kind="telemetry", name="workload", version=fingerprint(body), body=msgspec.Raw(body)))
    )


def request(sidecar: Sidecar, path: bytes) -> None:
    """One that was answered with 200."""
    local = cast(Local, sidecar.traffic)
    assert local.snapshot is not None
    record = ExchangeRecord(local.snapshot.listeners["outbound"], 1.0, 1.7e9, RequestHead(b"GET", path, b"rating", []))
    record.status = 200
    local.observer.finished(record, 1.004)


async def metrics(sidecar: Sidecar) -> str:
    return b"".join((await sidecar.metrics(""))[1]).decode()


def test_telemetry_is_obeyed_changed_and_taken_back(tmp_path: Path) -> None:
    wanted = Telemetry(
        metrics=(MetricOverride(tags=(TagOverride(tag="path", value="%REQ(:PATH)%"),)),),
        logs=(AccessLog(path=str(tmp_path / "log"), format="%REQ(:PATH)%", mode="CLIENT"),),
    )

    async def story(sidecar: Sidecar) -> None:
        assert not sidecar._push(with_telemetry(wanted, "v1")).nacks
        request(sidecar, b"/a")
        assert 'path="/a"' in await metrics(sidecar)
        quiet = Telemetry(metrics=(MetricOverride(disabled=True),), logs=())
        assert not sidecar._push(with_telemetry(quiet, "v2")).nacks
        request(sidecar, b"/b")
        assert "istio_requests_total" not in await metrics(sidecar)
        assert not sidecar._push(with_telemetry(None, "v3")).nacks
        request(sidecar, b"/c")
        text = await metrics(sidecar)
        assert "path=" not in text
        (line,) = [line for line in text.splitlines() if line.startswith("istio_requests_total{")]
        assert line.endswith(" 3")

    run(story)
    assert (tmp_path / "log").read_text() == "/a\n"


def test_telemetry_that_cannot_be_obeyed_changes_nothing(tmp_path: Path) -> None:
    async def story(sidecar: Sidecar) -> None:
        sidecar._push(with_telemetry(None, "v1"))
        ack = sidecar._push(with_telemetry(Telemetry(logs=(AccessLog(format="%NOPE%"),)), "v2"))
        assert ack.version == "v1"
        assert (ack.nacks[0].kind, ack.nacks[0].name) == ("telemetry", "workload")
        assert ack.nacks[0].error.startswith("logs[0].format: unknown or unsupported operator %NOPE%")

    run(story)


def test_workers_are_not_even_told_of_it() -> None:
    async def story() -> None:
        shared = Shared(bootstrap(concurrency=2))
        sidecar = Sidecar(bootstrap())
        sidecar.traffic = shared
        nacks = sidecar._push(with_telemetry(Telemetry(logs=(AccessLog(path="log"),)), "v1")).nacks
        assert [nack.kind for nack in nacks] == ["telemetry"] and shared.snapshot is None

    asyncio.run(story())


def test_workers_deltas_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        shared = Shared(bootstrap(concurrency=2))

        async def ask(what: str) -> list[Any]:
            assert what == "deltas"
            return [msgspec.to_builtins(Deltas([Counted(("a",), number)])) for number in (1, 2)]

        monkeypatch.setattr(shared._fleet, "ask", ask)
        assert [edge.requests for edge in (await shared.deltas()).edges] == [3]

    asyncio.run(story())


def test_real_workers_count_and_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = own_address()
    path = config().write(tmp_path / "mesh.json")
    argv = ("--pod", "book", "--ip", host, "--config", str(path), "--concurrency", "2", "--drain-seconds", "0")
    monkeypatch.setattr("sys.argv", ["meshproxy", *argv])

    async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(30):
            while True:
                try:
                    return await asyncio.open_connection(host, 15001, local_addr=(host, 0))
                except ConnectionRefusedError:  # the configuration is in force a moment before the socket listens
                    await asyncio.sleep(0.01)

    async def ask() -> bytes:
        reader, writer = await connected()
        writer.write(b"GET /a HTTP/1.1\r\nhost: nobody\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    async def story() -> None:
        sidecar = Sidecar(parse(argv, {}))
        shared = sidecar.traffic
        try:
            await shared.start()
            assert not sidecar._push(push(config())).nacks
            async with asyncio.timeout(30):
                while shared.ready():
                    await asyncio.sleep(0.01)
            answers = [await ask() for _ in range(20)]
            assert all(answer.startswith(b"HTTP/1.1 502") for answer in answers), answers[0]
            deltas = await shared.deltas()
            assert sum(edge.requests for edge in deltas.edges) == 20 and len(deltas.edges) == 1
            assert {name for name, _ in deltas.gauges} == {"connections", "cpu_seconds", "loop_lag_seconds", "rss_bytes"}
            assert (await shared.deltas()).edges == []
            assert [(one.status, one.path) for one in await shared.failures()] == [(502, "/a")] * 20
            for _ in range(3):
                await ask()
            await shared.drain(Plan(0.0, 0.0, False, False))  # the workers end, and leave behind what nobody had asked for
            left = await shared.deltas()
            assert sum(edge.requests for edge in left.edges) == 3 and not left.gauges
            assert (await shared.deltas()).edges == []
        finally:
            await shared.aclose()

    asyncio.run(story())


class _Control:
    """Stands for the agent: keeps what it is told, or loses it."""

    def __init__(self) -> None:
        self.status = type("Status", (), {"connected": True, "connects": 1})()
        self.reports: list[Report] = []
        self.takes = True
        self.heard = asyncio.Event()

    async def report(self, body: bytes) -> bool:
        if self.takes:
            self.reports.append(msgspec.json.decode(body, type=Report))
        self.heard.set()
        return self.takes


async def heard(control: _Control) -> None:
    control.heard.clear()
    async with asyncio.timeout(20):
        await control.heard.wait()


def test_reports_go_out_while_there_is_something_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "EVERY", 0)

    async def story(sidecar: Sidecar) -> None:
        sidecar._push(push(config()))
        control = _Control()
        task = spawn(sidecar.reporting.run(cast(Agent, control)), "reports")
        await heard(control)
        request(sidecar, b"/a")
        await heard(control)
        control.takes = False
        request(sidecar, b"/lost")
        await heard(control)
        control.takes = True
        request(sidecar, b"/b")
        await heard(control)
        control.status.connects = 2
        request(sidecar, b"/c")
        await heard(control)
        task.cancel()
        found = [report for report in control.reports if report.edges]
        assert [report.edges[0].requests for report in found] == [1, 1, 1]
        assert [(report.first, len(report.labels)) for report in found] == [(0, 1)] * 3  # told anew after each loss
        assert len({report.boot for report in found}) == 1 and found[-1].number > found[0].number
        assert dict(found[0].gauges)["rss_bytes"] > 1_000_000
        assert sidecar.reporting.dropped == 1 and sidecar.reporting.sent == len(control.reports)

    run(story)


def test_what_came_since_the_last_report_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(sidecar: Sidecar) -> None:
        sidecar._push(push(config()))
        control = _Control()
        request(sidecar, b"/a")
        await sidecar.reporting.last(cast(Agent, control))
        assert [report.edges[0].requests for report in control.reports] == [1]

        async def never(body: bytes) -> bool:
            await asyncio.get_running_loop().create_future()
            return True

        monkeypatch.setattr(control, "report", never)
        monkeypatch.setattr(reporting, "LAST", 0.01)
        request(sidecar, b"/b")
        await sidecar.reporting.last(cast(Agent, control))  # nobody waits for long

    run(story)


def test_one_scrape_has_the_apps_metrics_too() -> None:
    async def story(sidecar: Sidecar) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\n\r\napp_total 5\n")
            writer.close()

        assert sidecar.app_metrics is not None
        kind, pieces = await sidecar.scrape("", 20.0)
        alone = b"".join(pieces).decode()
        assert "app_total" not in alone and 'mesh_app_metrics_failures_total{reason="connect"} 1' in alone
        server = await asyncio.start_server(serve, HOST, 0)
        sidecar.app_metrics._port = server.sockets[0].getsockname()[1]
        kind, pieces = await sidecar.scrape("application/openmetrics-text", 20.0)
        both = b"".join(pieces).decode()
        assert kind.startswith("text/plain") and both.startswith("app_total 5\n") and "\nmesh_app_metrics_fetched_total 1" in both
        server.close()
        await server.wait_closed()

    run(story, app_metrics=AppPage("", 1, "/metrics"))
