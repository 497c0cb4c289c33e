"""HTTP/1.1 through a real sidecar, message by message: what the app sees, what the client gets, which connections live on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, Peer

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET /a HTTP/1.1\r\nhost: raw\r\n\r\n"


@pytest.fixture(scope="module")
def raw() -> Iterator[Listening]:
    with Listening() as listening:
        yield listening


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with App() as app:
        yield app


@pytest.fixture(scope="module")
def sidecar(raw: Listening, app: App) -> Iterator[Sidecar]:
    config = Config().service("raw", raw.address).service("app", app.address)
    config.listener("gateway|8081", "gateway", 8081, "*", app.address)
    with Sidecar(config) as sidecar:
        yield sidecar


@pytest.fixture
def upstream(raw: Listening, sidecar: Sidecar) -> Iterator[Listening]:
    """``raw`` without connections of another test: neither open here nor idle in the sidecar's pool."""
    yield raw
    raw.forget()


@pytest.fixture
def client(sidecar: Sidecar, upstream: Listening) -> Iterator[Peer]:
    with sidecar.client() as peer:
        yield peer


def start(client: Peer, upstream: Listening, request: bytes = GET) -> Peer:
    """Send a request's first bytes; the app's end of its connection."""
    client.send(request)
    return upstream.accept()


def test_one_connection_on_each_side_serves_many_requests(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream)
    for _ in range(5):
        line, headers, _ = server.request()
        assert line == "GET /a HTTP/1.1"
        assert headers["host"] == "raw"
        server.send(OK)
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.headers["server"] == "meshproxy"
        client.send(GET)
    assert server.request()[0] == "GET /a HTTP/1.1"
    server.send(OK)
    assert client.response().status == 200


def test_pipelined_requests_wait_for_each_other(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream, GET + GET.replace(b"/a", b"/b") + GET.replace(b"/a", b"/c"))
    for path in ("/a", "/b", "/c"):
        assert server.request()[0] == f"GET {path} HTTP/1.1"
        assert server.silent()
        server.send(OK)
    assert [client.response().body for _ in range(3)] == [b"ok"] * 3


def test_bodies_in_chunks_both_ways_with_trailers(client: Peer, upstream: Listening) -> None:
    post = b"POST /up HTTP/1.1\r\nhost: raw\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nte: trailers\r\n\r\n"
    server = start(client, upstream, post + b"3\r\nabc\r\n")
    line, headers = server.head()
    assert (line, headers["transfer-encoding"]) == ("POST /up HTTP/1.1", "chunked")
    assert server.exactly(8) == b"3\r\nabc\r\n"  # passed on before the end is there
    client.send(b"5;ext=1\r\ndefgh\r\n0\r\nx-sum: 8\r\n\r\n")
    assert server.chunks() == (b"defgh", {"x-sum": "8"})
    server.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n4\r\nwxyz\r\n")
    status, headers = client.head()
    assert (status, headers["transfer-encoding"]) == ("HTTP/1.1 200 OK", "chunked")
    assert client.exactly(9) == b"4\r\nwxyz\r\n"
    server.send(b"0\r\nx-end: yes\r\n\r\n")
    assert client.chunks() == (b"", {"x-end": "yes"})
    client.send(GET)  # and both connections go on
    assert server.request()[0] == "GET /a HTTP/1.1"
    server.send(OK)
    assert client.response().body == b"ok"


def test_expect_is_relayed_and_one_100_comes_back(client: Peer, upstream: Listening) -> None:
    head = b"PUT /x HTTP/1.1\r\nhost: raw\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
    server = start(client, upstream, head)
    assert server.head()[1]["expect"] == "100-continue"
    assert client.silent()
    server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.response().status == 100
    client.send(b"body")
    assert server.exactly(4) == b"body"
    server.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)  # a second one is one too many
    assert client.response().status == 200


def test_a_417_instead_of_100_gets_no_body_and_closes(client: Peer, upstream: Listening) -> None:
    head = b"PUT /x HTTP/1.1\r\nhost: raw\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
    server = start(client, upstream, head)
    server.head()
    server.send(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")
    answer = client.response()
    assert (answer.status, answer.headers["connection"]) == (417, "close")
    assert client.ended()
    assert server.ended()


def test_curl_uploads_with_expect(sidecar: Sidecar, app: App) -> None:
    done = subprocess.run(
        ["curl", "-sS", "-x", f"{sidecar.ip}:15001", "-H", "Expect: 100-continue", "--data-binary", "@-", "http://app/up"],
        input=b"z" * 200_000,
        capture_output=True,
        timeout=20,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["size"] == 200_000
    assert ["expect", "100-continue"] in told["headers"]


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_by_their_status(client: Peer, upstream: Listening, status: int) -> None:
    server = start(client, upstream)
    server.request()
    server.send(b"HTTP/1.1 %d Thus\r\netag: x\r\n\r\n" % status)
    assert client.response().status == status
    client.send(GET)
    server.request()
    server.send(OK)
    assert client.response().body == b"ok"


def test_head_keeps_its_length_and_the_connection(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream, b"HEAD /a HTTP/1.1\r\nhost: raw\r\n\r\n")
    assert server.request()[0] == "HEAD /a HTTP/1.1"
    server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")
    answer = client.response("HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, "1234")
    client.send(GET)
    server.request()
    server.send(OK)
    assert client.response().body == b"ok"


def test_103_early_hints_pass(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream)
    server.request()
    server.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n")
    hints = client.response()
    assert (hints.status, hints.headers["link"]) == (103, "</a.css>")
    server.send(OK)
    assert client.response().status == 200


def test_http_1_0_clients_get_no_chunks_and_no_1xx(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream, b"GET /a HTTP/1.0\r\nhost: raw\r\n\r\n")
    assert server.request()[0] == "GET /a HTTP/1.1"
    server.send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
    server.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n")
    answer = client.response()
    assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"wxyz", "close")
    assert "transfer-encoding" not in answer.headers


def test_http_1_0_with_keep_alive_lives_on(client: Peer, upstream: Listening) -> None:
    head = b"GET /a HTTP/1.0\r\nhost: raw\r\nconnection: keep-alive\r\n\r\n"
    server = start(client, upstream, head)
    for _ in range(2):
        server.request()
        server.send(OK)
        answer = client.response()
        assert (answer.body, answer.headers["connection"]) == (b"ok", "keep-alive")
        client.send(head)
    server.request()
    server.send(OK)
    assert client.response().status == 200


def test_http_1_0_servers_end_their_answer_by_closing(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream)
    server.request()
    server.send(b"HTTP/1.0 200 OK\r\n\r\nall there is")
    server.finish()
    assert client.response().body == b"all there is"
    client.send(GET)
    again = upstream.accept()
    again.request()
    again.send(OK)
    assert client.response().body == b"ok"


def test_absolute_form_wins_over_host(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream, b"GET http://raw/x?y=1 HTTP/1.1\r\nhost: elsewhere\r\n\r\n")
    line, headers, _ = server.request()
    assert (line, headers["host"]) == ("GET /x?y=1 HTTP/1.1", "raw")
    server.send(OK)
    assert client.response().status == 200


def test_hop_by_hop_headers_stay_here(client: Peer, upstream: Listening) -> None:
    server = start(
        client,
        upstream,
        b"GET /a HTTP/1.1\r\nhost: raw\r\nconnection: x-mine, keep-alive\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\n"
        b"proxy-connection: keep-alive\r\nx-yours: 2\r\n\r\n",
    )
    headers = server.request()[1]
    assert headers["x-yours"] == "2"
    assert not headers.keys() & {"x-mine", "keep-alive", "proxy-connection", "connection"}
    server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x-inner\r\nx-inner: 1\r\nx-outer: 2\r\n\r\n")
    answer = client.response()
    assert answer.headers["x-outer"] == "2"
    assert "x-inner" not in answer.headers


def websocket(client: Peer, upstream: Listening) -> Peer:
    head = b"GET /chat HTTP/1.1\r\nhost: raw\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n"
    server = start(client, upstream, head)
    headers = server.head()[1]
    assert (headers["upgrade"], headers["connection"].lower()) == ("websocket", "upgrade")
    server.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello")
    answer = client.response()
    assert (answer.status, answer.headers["upgrade"]) == (101, "websocket")
    assert client.exactly(5) == b"hello"
    return server


def test_upgrade_opens_a_tunnel_that_the_client_ends_first(client: Peer, upstream: Listening) -> None:
    server = websocket(client, upstream)
    client.send(b"ping")
    assert server.exactly(4) == b"ping"
    client.finish()
    assert server.ended()
    server.send(b"a long good-bye")
    server.finish()
    assert client.rest() == b"a long good-bye"


def test_upgrade_opens_a_tunnel_that_the_app_ends_first(client: Peer, upstream: Listening, sidecar: Sidecar) -> None:
    server = websocket(client, upstream)
    server.send(b"bye")
    server.finish()
    assert client.rest() == b"bye"
    client.send(b"one more")
    client.finish()
    assert server.rest() == b"one more"
    sidecar.settled("raw")


def test_a_refused_upgrade_is_an_ordinary_answer(client: Peer, upstream: Listening) -> None:
    head = b"GET /chat HTTP/1.1\r\nhost: raw\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    server = start(client, upstream, head)
    server.head()
    server.send(OK)
    assert client.response().body == b"ok"
    client.send(GET)
    server.request()
    server.send(OK)
    assert client.response().body == b"ok"


def test_an_upgrade_whose_body_is_still_coming_is_cut_and_forgotten(client: Peer, upstream: Listening, sidecar: Sidecar) -> None:
    head = b"POST /c HTTP/1.1\r\nhost: raw\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 9\r\n\r\nabc"
    server = start(client, upstream, head)
    server.head()
    server.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
    assert client.response().status == 502
    server.rest()
    sidecar.settled("raw")


def test_an_early_answer_reaches_a_client_that_is_still_sending(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream, b"POST /big HTTP/1.1\r\nhost: raw\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1000)
    server.head()
    server.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig")
    answer = client.response()
    assert (answer.status, answer.body, answer.headers["connection"]) == (413, b"big", "close")
    assert client.ended()
    server.rest()


def test_a_client_that_half_closes_gets_its_answer(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream)
    client.finish()
    server.request()
    server.send(OK)
    assert client.response().body == b"ok"
    assert client.ended()


def test_an_app_that_closes_within_its_body_cuts_the_answer(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream)
    server.request()
    server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    assert client.head()[0] == "HTTP/1.1 200 OK"
    assert client.exactly(4) == b"half"
    server.close()
    with pytest.raises((EOFError, ConnectionResetError)):
        client.exactly(1)


def test_a_chunked_answer_that_breaks_off_is_no_whole_answer(client: Peer, upstream: Listening) -> None:
    server = start(client, upstream)
    server.request()
    server.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    client.head()
    assert client.exactly(9) == b"4\r\nhalf\r\n"
    server.close()
    assert b"0\r\n" not in client.rest()


def test_curl_tunnels_with_connect(sidecar: Sidecar, app: App) -> None:
    done = subprocess.run(
        ["curl", "-sS", "-p", "-x", f"http://{sidecar.ip}:15001", "http://app:80/in?x=1", "http://app:80/again"],
        capture_output=True,
        timeout=20,
        check=True,
    )
    first, second = done.stdout.replace(b"}{", b"}\n{").splitlines()
    assert (json.loads(first)["target"], json.loads(second)["target"]) == ("/in?x=1", "/again")


def test_connect_half_closes_both_ways(client: Peer, upstream: Listening, sidecar: Sidecar) -> None:
    client.send(b"CONNECT raw:80 HTTP/1.1\r\nhost: raw:80\r\n\r\nearly")
    server = upstream.accept()
    assert client.response("CONNECT").status == 200
    assert server.exactly(5) == b"early"
    client.finish()
    assert server.ended()
    server.send(b"late")
    server.finish()
    assert client.rest() == b"late"
    sidecar.settled("raw")


def test_http_1_0_and_bare_curl_through_a_gateway(sidecar: Sidecar, app: App) -> None:
    url = f"http://{sidecar.ip}:8081/x"
    for version in ("--http1.0", "--http1.1"):
        done = subprocess.run(["curl", "-sS", version, url, url], capture_output=True, timeout=20, check=True)
        assert done.stdout.count(b'"app": "app"') == 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: app\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: app\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/2.0\r\nhost: app\r\n\r\n", 505),
        (b"GET /%00 HTTP/1.1\r\nhost: app\r\n\r\n", 400),
    ],
)
def test_what_is_refused_closes_and_never_reaches_the_app(
    client: Peer, sidecar: Sidecar, app: App, request_bytes: bytes, status: int
) -> None:
    before = app.seen
    client.send(request_bytes + b"GET /smuggled HTTP/1.1\r\nhost: app\r\n\r\n")
    answer = client.response()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert client.ended()
    assert app.seen == before
