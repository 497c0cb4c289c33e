"""``--concurrency 2``: two real workers under one parent look like one sidecar, and no process is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.load import Load
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with App() as app:
        yield app


def two(config: Config, *options: str, drain: float = 5) -> Sidecar:
    return Sidecar(config, "--concurrency", "2", *options, drain=drain, own_group=True)


def alive(pid: int) -> bool:
    """Running, and not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers(sidecar: Sidecar) -> list[int]:
    return [pid for pid in sidecar.children() if alive(pid)]


def served_by(sidecar: Sidecar, pid: int) -> int:
    """Sockets of the process on the outbound port, with its listening one."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def sidecar(app: App) -> Iterator[Sidecar]:
    with two(Config().service("app", app.address)) as sidecar:
        assert len(workers(sidecar)) == 2
        yield sidecar


def crowd(sidecar: Sidecar, count: int, path: str = "/") -> None:
    """Requests on a connection each, so that the kernel spreads them."""
    for _ in range(count):
        with sidecar.client() as client:
            assert client.ask(GET.replace(b"GET / ", f"GET {path} ".encode())).status == 200


def test_two_workers_are_one_sidecar_to_its_pages(sidecar: Sidecar) -> None:
    before = sidecar.metrics("istio_requests_total")
    quiet = [served_by(sidecar, pid) for pid in workers(sidecar)]
    held = [sidecar.client() for _ in range(40)]
    try:
        for client in held:
            assert client.ask(GET).status == 200
        shares = [served_by(sidecar, pid) - count for pid, count in zip(workers(sidecar), quiet, strict=True)]
        assert all(share > 0 for share in shares), f"the kernel gave all to one: {shares}"
        assert sidecar.metrics("mesh_downstream_connections") == 40
        (outbound,) = sidecar.json("/listeners?format=json")["listeners"]
        assert outbound["connections"] == 40
    finally:
        for client in held:
            client.close()
    assert sidecar.metrics("istio_requests_total") - before == 40
    assert sidecar.metrics("istio_requests_total", port=15000) - before == 40
    assert sidecar.metrics("istio_request_duration_milliseconds_count") - before == 40
    (endpoint,) = sidecar.cluster("app")["endpoints"]
    assert endpoint["rq_success"] == before + 40
    assert sidecar.json("/server_info")["concurrency"] == 2


def test_configuration_reaches_both(sidecar: Sidecar, app: App) -> None:
    with App("other") as other:
        sidecar.install(Config().service("app", other.address))

        def moved() -> bool:
            answers = []
            for _ in range(20):
                with sidecar.client() as client:
                    answers.append(json.loads(client.ask(GET).body)["app"])
            return set(answers) == {"other"}

        until(moved, "both workers have it")
        sidecar.install(sidecar.config)
        until(lambda: not moved(), "both workers have it")


def test_a_taken_port_is_refused_by_the_parent(sidecar: Sidecar, app: App) -> None:
    greedy = Config().service("app", app.address).listener("gateway|8085", "gateway", 8085, "*", app.address)
    with socket.create_server((sidecar.ip, 8085)):
        before = sidecar.json("/server_info")["config"]
        sidecar.offer(greedy)
        until(lambda: "cannot listen on" in sidecar.log(), "the refusal")
        assert sidecar.json("/server_info")["config"]["version"] == before["version"]
        assert "gateway|8085" not in json.dumps(sidecar.json("/listeners?format=json"))
        crowd(sidecar, 5)
    for config in (
        Config().service("app", app.address).listener("in", "inbound", 15000, "*", app.address),
        Config().service("app", app.address).listener("in", "inbound", 70000, "*", app.address),
        Config().service("app", app.address).listener("in", "inbound", 8085, "*", app.address, bind="nowhere"),
    ):
        lines = sidecar.log().count("listener in:")
        sidecar.offer(config)
        until(lambda lines=lines: sidecar.log().count("listener in:") > lines, "the refusal")
    sidecar.install(greedy)
    until(lambda: _open(sidecar, 8085), "the port serves")
    sidecar.install(sidecar.config)


def _open(sidecar: Sidecar, port: int) -> bool:
    try:
        with sidecar.client(port) as client:
            return client.ask(GET).status == 200
    except OSError:
        return False


def test_a_killed_worker_comes_back_with_its_configuration(app: App) -> None:
    with two(Config().service("app", app.address)) as sidecar:
        for round_ in range(2):
            victim, other = workers(sidecar)
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: victim not in sidecar.children(), "it is gone")
            crowd(sidecar, 10)
            until(lambda: len(workers(sidecar)) == 2, "another one is there")
            assert other in workers(sidecar)
            until(lambda: sidecar.get("/ready")[0] == 200, "it is ready")
            crowd(sidecar, 20)
            assert sidecar.metrics("mesh_worker_restarts_total") == round_ + 1
        assert sidecar.log().count("it starts again") == 2


def test_a_stop_while_a_worker_starts_again_is_no_hang(app: App) -> None:
    with two(Config().service("app", app.address)) as sidecar:
        victim, _ = workers(sidecar)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in sidecar.children(), "it is gone")
        until(lambda: len(sidecar.children()) == 2, "another one starts")
        sidecar.signal(signal.SIGTERM)  # in the middle of its start
        assert sidecar.wait() == 0


@pytest.mark.parametrize("keep", [True, False])
def test_a_stop_under_load_loses_no_request(app: App, keep: bool) -> None:
    with two(Config().service("app", app.address)) as sidecar, Load(sidecar.outbound, "app", 8, keep=keep, ends=True) as load:
        load.more(300)
        pids = workers(sidecar)
        sidecar.signal(signal.SIGTERM)
        assert sidecar.wait() == 0
        load.join()
        assert load.lost == []
        assert set(load.statuses) == {200}
        assert not any(alive(pid) for pid in pids)


def test_control_c_goes_to_the_whole_group(app: App) -> None:
    with Listening() as raw, two(Config().service("app", app.address).service("raw", raw.address)) as sidecar:
        with sidecar.client() as busy:
            busy.send(GET.replace(b"app", b"raw"))
            server = raw.accept()
            server.request()
            os.killpg(sidecar.pid, signal.SIGINT)
            server.send(OK)
            answer = busy.response()
            assert (answer.body, answer.headers.get("connection", "close")) == (b"ok", "close")
        assert sidecar.wait() == 0
        assert "starts again" not in sidecar.log()


def test_a_hang_up_of_the_terminal_ends_nobody(app: App) -> None:
    with two(Config().service("app", app.address)) as sidecar:
        before = workers(sidecar)
        os.killpg(sidecar.pid, signal.SIGHUP)
        crowd(sidecar, 10)
        assert workers(sidecar) == before


def test_logs_are_opened_again_after_a_rotation(app: App, tmp_path: Path) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    with two(Config().service("app", app.address), "--access-log", str(path), "--access-log-format", "%REQ(:PATH)%") as sidecar:
        crowd(sidecar, 10, "/before")
        until(lambda: path.exists() and path.read_text().count("/before") == 10, "the lines so far")
        path.rename(old)
        os.killpg(sidecar.pid, signal.SIGUSR1)  # as a hang-up: the workers hear of it too, and leave it to the parent

        def opened() -> bool:
            crowd(sidecar, 1, "/after")
            return path.exists()

        until(opened, "the path is there again")
        assert len(workers(sidecar)) == 2
    assert "/before" not in path.read_text()


def test_a_killed_parent_leaves_no_worker(app: App) -> None:
    sidecar = two(Config().service("app", app.address), drain=1)
    pids = workers(sidecar)
    assert len(pids) == 2
    with sidecar.client() as idle:
        assert idle.ask(GET).status == 200
        sidecar.kill()
        until(lambda: not any(alive(pid) for pid in pids), "they are gone")
    sidecar.__exit__(RuntimeError, None, None)


def test_drain_by_post_reaches_both(app: App) -> None:
    with two(Config().listener("in", "inbound", 8080, "*", app.address)) as sidecar:
        assert sidecar.post("/drain")[0] == 200

        def closed() -> bool:
            try:
                sidecar.client(8080).close()
            except ConnectionRefusedError:
                return True
            return False

        until(closed, "nobody accepts")
        assert len(workers(sidecar)) == 2
        assert sidecar.post("/quitquitquit")[0] == 200
        assert sidecar.wait() == 0


def test_limits_hold_for_the_pod(app: App) -> None:
    """Each worker has its share, rounded up: no more than N - 1 over the limit."""
    with Listening() as raw:
        config = Config().service("app", app.address).service("raw", raw.address, pool={"max_requests": 3})
        with two(config) as sidecar:
            held = [sidecar.client() for _ in range(24)]
            for client in held:
                client.send(GET.replace(b"app", b"raw"))
            until(lambda: sidecar.active("raw")["requests"] + _refused(sidecar) == 24, "all are judged")
            assert 2 <= sidecar.active("raw")["requests"] <= 4
            for client in held:
                client.close()
            raw.close()


def _refused(sidecar: Sidecar) -> int:
    return int(sidecar.cluster("raw")["overflow"]["requests"])
