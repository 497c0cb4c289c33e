"""How a real sidecar ends: what was asked is answered, what is new is refused, nothing waits for ever, the exit code is 0."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.load import Load
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: raw\r\n\r\n"


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with App() as app:
        yield app


@pytest.fixture
def raw() -> Iterator[Listening]:
    with Listening() as listening:
        yield listening


def config(app: App, *others: Listening) -> Config:
    config = Config().service("app", app.address)
    for other in others:
        config.service("raw", other.address)
    return config


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_loses_no_request(app: App, number: int, keep: bool) -> None:
    with Sidecar(config(app)) as sidecar, Load(sidecar.outbound, "app", 8, keep=keep, ends=True) as load:
        load.more(300)
        sidecar.signal(number)
        assert sidecar.wait() == 0
        load.join()
        assert load.lost == []
        assert set(load.statuses) == {200}
        assert load.closes >= (8 if keep else load.answered)


def test_what_is_in_flight_ends_and_says_close(app: App, raw: Listening) -> None:
    with Sidecar(config(app, raw)) as sidecar, sidecar.client() as busy, sidecar.client() as late, sidecar.client() as idle:
        busy.send(GET)
        server = raw.accept()
        server.request()
        late.send(b"POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 4\r\n\r\nbo")
        idle.send(GET.replace(b"raw", b"app"))
        idle.response()
        sidecar.signal(signal.SIGTERM)
        until(lambda: _refuses(sidecar), "no new connections")
        late.send(b"dy")
        answer = late.response()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert idle.ended()
        assert sidecar.process.poll() is None
        assert sidecar.get("/ready") == (503, "DRAINING: draining\n")
        assert sidecar.get("/healthz/ready", port=15021)[0] == 503
        server.send(OK)
        answer = busy.response()
        assert (answer.body, answer.headers["connection"]) == (b"ok", "close")
        assert busy.ended()
        assert sidecar.wait() == 0


def _refuses(sidecar: Sidecar, port: int = 15001) -> bool:
    try:
        sidecar.client(port).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_nothing_short(app: App, raw: Listening, again: int) -> None:
    with Sidecar(config(app, raw)) as sidecar, sidecar.client() as busy:
        busy.send(GET)
        server = raw.accept()
        server.request()
        sidecar.signal(signal.SIGTERM)
        until(lambda: _refuses(sidecar), "draining")
        sidecar.signal(again)
        server.send(OK)
        assert busy.response().body == b"ok"
        assert sidecar.wait() == 0


def test_the_drain_is_bounded(app: App, raw: Listening) -> None:
    with Sidecar(config(app, raw), drain=0.3) as sidecar, sidecar.client() as stuck:
        stuck.send(GET)
        raw.accept().request()
        started = time.monotonic()
        sidecar.signal(signal.SIGTERM)
        assert sidecar.wait() == 0
        assert time.monotonic() - started < 5
        assert stuck.rest() == b""
        assert "drain: 1 connections cut after 0.3 s" in sidecar.log()


def test_a_tunnel_is_waited_for_and_cut_at_the_end(app: App, raw: Listening) -> None:
    with Sidecar(config(app, raw), drain=0.5) as sidecar, sidecar.client() as client:
        client.send(b"CONNECT raw:80 HTTP/1.1\r\nhost: raw:80\r\n\r\n")
        server = raw.accept()
        client.response("CONNECT")
        sidecar.signal(signal.SIGTERM)
        until(lambda: _refuses(sidecar), "draining")
        client.send(b"still")
        assert server.exactly(5) == b"still"
        assert sidecar.wait() == 0
        assert client.rest() == b""
        assert server.rest() == b""


def test_a_request_on_a_listener_that_has_left_is_waited_for(app: App, raw: Listening) -> None:
    both = config(app).listener("gateway|8081", "gateway", 8081, "*", raw.address)
    with Sidecar(both) as sidecar, sidecar.client(8081) as client:
        client.send(GET)
        server = raw.accept()
        server.request()
        sidecar.install(config(app))
        sidecar.signal(signal.SIGTERM)
        until(lambda: _refuses(sidecar), "draining")
        assert sidecar.get("/ready")[0] == 503
        server.send(OK)
        assert client.response().body == b"ok"
        assert sidecar.wait() == 0


def test_drain_by_post_and_then_the_end(app: App, raw: Listening) -> None:
    """Callers are sent away; what the app asks goes on."""
    serving = config(app, raw).listener("in", "inbound", 8080, "*", app.address)
    with Sidecar(serving) as sidecar, sidecar.client() as busy, sidecar.client() as own, sidecar.client(8080) as idle:
        idle.ask(GET)
        busy.send(GET)
        server = raw.accept()
        server.request()
        assert sidecar.post("/drain") == (200, "OK: draining\n")
        until(lambda: _refuses(sidecar, 8080), "draining")
        assert sidecar.get("/ready")[0] == 503
        assert idle.ended()
        sidecar.install(serving.listener("gateway|8081", "gateway", 8081, "*", app.address))
        until(lambda: "gateway|8081" in sidecar.get("/listeners")[1], "the listener is there")
        assert _refuses(sidecar, 8081)  # a listener that comes during a drain does not accept either
        server.send(OK)
        assert "connection" not in busy.response().headers
        assert own.ask(GET.replace(b"raw", b"app")).status == 200
        sidecar.client().close()
        assert sidecar.process.poll() is None, "the process stays"
        assert sidecar.post("/quitquitquit")[0] == 200
        assert sidecar.wait() == 0


def test_quitquitquit_on_the_metrics_port(app: App) -> None:
    with Sidecar(config(app)) as sidecar:
        assert sidecar.post("/quitquitquit", port=15020)[0] == 200
        assert sidecar.wait() == 0


def test_changes_need_post_and_our_own_host(app: App) -> None:
    with Sidecar(config(app)) as sidecar:
        for port in (15000, 15020):
            for path in ("/drain", "/quitquitquit"):
                status, text, headers = sidecar.fetch(path, port=port)
                assert (status, headers["allow"]) == (405, "POST"), text
                for name in ("evil.example", f"evil.example:{port}", "mesh.internal"):
                    assert sidecar.fetch(path, "POST", port, {"host": name})[0] == 403
                assert sidecar.fetch(path, "POST", port, {"origin": "http://evil.example"})[0] == 403
        assert sidecar.fetch("/logging?level=debug")[0] == 405
        assert sidecar.fetch("/config_dump", headers={"host": "evil.example"})[0] == 403
        assert sidecar.fetch("/ready", headers={"host": "localhost:15000"})[0] == 200
        assert sidecar.get("/ready") == (200, "LIVE\n")
