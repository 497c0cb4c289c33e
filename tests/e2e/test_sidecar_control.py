"""Control comes and goes under load: two real sidecars of a real mesh-control go on, and hear it again when it is back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh_control_process import KILL, TERM, ControlProcess, Obj, create, pod, service
from tests.e2e.support.app import App
from tests.e2e.support.load import Load
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import own_address, until


@dataclass
class Mesh:
    """``book`` calls ``rating`` through both sidecars."""

    control: ControlProcess
    book: Sidecar
    rating: Sidecar

    def connected(self) -> bool:
        return all(one.json("/server_info")["control"]["connected"] for one in (self.book, self.rating))

    def load(self) -> Load:
        return Load(self.book.outbound, "rating:8080", 4)


def apply(control: ControlProcess, *objects: Obj) -> None:
    async def story() -> None:
        async with control.client() as client:
            for obj in objects:
                await create(client, obj)

    asyncio.run(story())


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    home = tmp_path_factory.mktemp("mesh")
    control = ControlProcess(home / "state", own_address())
    control.start()
    try:
        with App(host=own_address()) as app:
            book_ip, rating_ip = own_address(), app.address[0]
            rating = pod("rating-v1", rating_ip, "rating")
            rating["metadata"]["annotations"] = {"mesh.dev/inbound-ports": f"8080:{app.address[1]}"}
            rating["spec"]["containers"][0]["ports"] = [{"containerPort": 8080}]
            rating_service = service("rating")
            rating_service["spec"]["ports"][0]["targetPort"] = 8080
            apply(control, pod("book", book_ip, "book"), service("book"), rating, rating_service)
            with (
                sidecar(control, home, "book", book_ip) as one,
                sidecar(control, home, "rating-v1", rating_ip) as other,
            ):
                mesh = Mesh(control, one, other)
                until(lambda: ask(one) == 200, "the way to rating", 20)
                yield mesh
    finally:
        control.stop()


def sidecar(control: ControlProcess, home: Path, name: str, ip: str, *more: str) -> Sidecar:
    token = home / f"{name}.token"
    token.write_text(asyncio.run(control.join_token(name)))
    own = home / name
    own.mkdir()
    ca = control.state / "ca" / "root.pem"
    options = ["--control", control.url, "--control-ca", str(ca), "--token-file", str(token), *more]
    return Sidecar(None, *options, ip=ip, pod=name, home=own)


def ask(sidecar: Sidecar, host: str = "rating:8080") -> int:
    try:
        with sidecar.client() as client:
            return client.ask(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()).status
    except OSError:
        return 0


def direct(name: str, status: int) -> Obj:
    """A host that answers by itself."""
    http: list[dict[str, Any]] = [{"directResponse": {"status": status}}]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name},
        "spec": {"hosts": [f"{name}.example"], "http": http},
    }


def test_both_sidecars_count_a_request_with_their_peer(mesh: Mesh) -> None:
    before = mesh.rating.metrics("istio_requests_total", reporter="destination")
    assert ask(mesh.book) == 200
    labels = {"source_workload": "book", "destination_workload": "rating-v1", "response_code": "200"}
    assert mesh.book.metrics("istio_requests_total", reporter="source", **labels) >= 1
    assert mesh.rating.metrics("istio_requests_total", reporter="destination", **labels) >= 1
    assert mesh.rating.metrics("istio_requests_total", reporter="destination") - before == 1


@pytest.mark.parametrize("how", [TERM, KILL])
def test_control_restarts_under_load_and_fails_no_request(mesh: Mesh, how: int) -> None:
    number = 201 if how == TERM else 202
    with mesh.load() as load:
        load.more(100)
        port = mesh.control.port
        mesh.control.signal(how)
        until(lambda: not mesh.connected(), "they notice")
        load.more(200)
        assert (mesh.book.get("/ready")[0], mesh.rating.get("/ready")[0]) == (200, 200)
        mesh.control.start(port)
        until(mesh.connected, "they are back", 20)
        apply(mesh.control, direct(f"news{number}", number))
        until(lambda: ask(mesh.book, f"news{number}.example") == number, "what is new arrives")
        load.more(100)
    assert load.lost == []
    assert set(load.statuses) == {200}
    for one in (mesh.book, mesh.rating):
        assert one.json("/server_info")["config"]["rejected"] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sidecar_that_stops_has_told_all_that_it_knew(mesh: Mesh, tmp_path: Path, workers: int) -> None:
    """It goes before the next report and the next batch of spans are due."""
    name, trace = f"leaver-{workers}", f"{workers:032x}"
    ip = own_address()
    apply(mesh.control, pod(name, ip, name))
    with sidecar(mesh.control, tmp_path, name, ip, "--concurrency", str(workers)) as one:
        until(lambda: ask(one) == 200, "the way to rating", 20)
        before = one.metrics("istio_requests_total", reporter="source")
        with one.client() as client:
            line = f"GET / HTTP/1.1\r\nhost: rating:8080\r\ntraceparent: 00-{trace}-{1:016x}-01\r\n\r\n"
            assert client.ask(line.encode()).status == 200
        assert one.stop() == 0
    rows = told(mesh.control, f"/mesh/v1/top/routes?window=300&from={name}")["rows"]
    assert sum(row["requests"] for row in rows if row["told"]) == before + 1
    until(lambda: told(mesh.control, f"/mesh/v1/traces/{trace}").get("spans"), "its spans")


def told(control: ControlProcess, path: str) -> Any:
    async def story() -> Any:
        async with control.client() as client:
            return (await client.get(path)).json()

    return asyncio.run(story())


def test_the_end_of_control_leaves_a_stop_as_it_is(mesh: Mesh) -> None:
    """Last: it takes control away for good."""
    mesh.control.stop()
    assert ask(mesh.book) == 200
    told = json.loads(mesh.book.get("/server_info")[1])
    until(lambda: mesh.book.json("/server_info")["control"]["last_error"], "it says what is wrong")
    assert told["state"] == "LIVE"
