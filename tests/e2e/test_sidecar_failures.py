"""What a real sidecar does when the app does not: refused, unreachable, silent, garbage, gone; and when it retries."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from meshproxy.model.route import Retry
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import Listening, Peer, own_address, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
RESET = "upstream connect error or disconnect/reset before headers. reset reason: "


def get(host: str, path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def raw() -> Iterator[Listening]:
    with Listening() as listening:
        yield listening


@pytest.fixture(scope="module")
def spare() -> Iterator[Listening]:
    with Listening() as listening:
        yield listening


@pytest.fixture(scope="module")
def hole() -> Iterator[Listening]:
    """An address that answers no SYN: its queue of connections is full and nobody takes one."""
    with Listening(backlog=0) as listening:
        fillers = []
        for _ in range(2):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(listening.address)
            fillers.append(sock)
        yield listening
        for sock in fillers:
            sock.close()


@pytest.fixture(scope="module")
def sidecar(raw: Listening, spare: Listening, hole: Listening) -> Iterator[Sidecar]:
    nobody = (own_address(), 9)
    config = Config()
    config.service("raw", raw.address)
    config.service("nobody", nobody)
    config.service("none")
    config.service("hole", hole.address, pool={"connect_timeout": 0.2})
    config.service("hasty", raw.address, forward={"timeout": 0.2})
    config.service("patient", raw.address, forward={"retry": Retry(attempts=1, on=("5xx",), per_try_timeout=0.2)})
    config.service("again", nobody, raw.address, forward={"retry": Retry(attempts=2, on=("connect-failure",))})
    config.service("persistent", raw.address, forward={"retry": Retry(attempts=2, on=("5xx",))})
    config.service("elsewhere", raw.address, spare.address, forward={"retry": Retry(attempts=2, on=("5xx",))})
    config.service("lost", nobody, forward={"retry": Retry(attempts=1, on=("connect-failure",))})
    with Sidecar(config, "--access-log", "/dev/stdout") as sidecar:
        yield sidecar


@pytest.fixture
def upstream(raw: Listening, spare: Listening, sidecar: Sidecar) -> Iterator[Listening]:
    yield raw
    raw.forget()
    spare.forget()


@pytest.fixture
def client(sidecar: Sidecar, upstream: Listening) -> Iterator[Peer]:
    with sidecar.client() as peer:
        yield peer


def test_a_refused_connection(client: Peer) -> None:
    answer = client.ask(get("nobody"))
    assert (answer.status, answer.headers["content-type"]) == (503, "text/plain")
    failure = "remote connection failure, transport failure reason: delayed connect error: Connection refused"
    assert answer.body.decode() == RESET + failure
    assert "connection" not in answer.headers
    assert client.ask(get("nobody")).status == 503  # the client's connection lives on


def test_a_refused_connection_after_retries_says_so(client: Peer) -> None:
    answer = client.ask(get("lost"))
    assert b"retried and the latest reset reason: remote connection failure" in answer.body


def test_no_endpoint_at_all(client: Peer) -> None:
    answer = client.ask(get("none"))
    assert (answer.status, answer.body) == (503, b"no healthy upstream")


def test_a_connect_that_is_never_answered_times_out(client: Peer, sidecar: Sidecar) -> None:
    started = time.monotonic()
    answer = client.ask(get("hole"))
    assert (answer.status, answer.body.decode()) == (503, RESET + "connection timeout")
    assert 0.15 < time.monotonic() - started < 5
    sidecar.settled("hole")


def test_the_route_s_timeout_is_504_and_frees_everything(client: Peer, upstream: Listening, sidecar: Sidecar) -> None:
    client.send(get("hasty"))
    server = upstream.accept()
    server.request()
    answer = client.response()
    assert (answer.status, answer.body) == (504, b"upstream request timeout")
    assert server.ended()
    sidecar.settled("hasty")
    assert sidecar.active("hasty")["connections"] == 0


def test_the_route_s_timeout_cuts_an_answer_that_has_begun(client: Peer, upstream: Listening) -> None:
    client.send(get("hasty"))
    server = upstream.accept()
    server.request()
    server.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    assert client.head()[0] == "HTTP/1.1 200 OK"
    assert client.rest() in (b"half", b"")
    server.rest()


def test_each_try_has_its_own_timeout(client: Peer, upstream: Listening) -> None:
    client.send(get("patient"))
    first = upstream.accept()
    assert first.request()[1]["x-envoy-attempt-count"] == "1"
    second = upstream.accept()
    assert first.ended()
    assert second.request()[1]["x-envoy-attempt-count"] == "2"
    second.send(OK)
    assert client.response().body == b"ok"


def test_tries_that_all_time_out_are_504(client: Peer, upstream: Listening) -> None:
    client.send(get("patient"))
    for _ in range(2):
        upstream.accept().request()
    answer = client.response()
    assert (answer.status, answer.body) == (504, b"upstream request timeout")


def test_a_refused_connection_is_retried_on_the_other_endpoint(client: Peer, upstream: Listening) -> None:
    for _ in range(2):
        client.send(get("again"))
        server = upstream.accept() if not upstream._taken else upstream._taken[0]
        server.request()
        server.send(OK)
        assert client.response().body == b"ok"


def test_a_body_is_sent_again_with_its_retry(client: Peer, upstream: Listening, spare: Listening) -> None:
    client.send(b"POST /x HTTP/1.1\r\nhost: elsewhere\r\ntransfer-encoding: chunked\r\nx-request-id: mine\r\n\r\n4\r\nbody\r\n")
    first = upstream.accept()
    first.head()
    assert first.exactly(9) == b"4\r\nbody\r\n"
    client.send(b"0\r\nx-t: 1\r\n\r\n")
    first.chunks()
    first.send(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno")
    second = spare.accept()
    headers = second.head()[1]
    assert (headers["x-request-id"], headers["x-envoy-attempt-count"]) == ("mine", "2")
    assert second.chunks() == (b"body", {"x-t": "1"})
    second.send(OK)
    assert client.response().body == b"ok"


def test_a_body_too_large_to_keep_is_not_sent_again(client: Peer, upstream: Listening) -> None:
    size = 3 << 20
    client.send(b"POST /x HTTP/1.1\r\nhost: persistent\r\ncontent-length: %d\r\n\r\n" % size)
    server = upstream.accept()
    server.head()
    for _ in range(size >> 16):
        client.send(b"z" * 65536)
        server.exactly(65536)
    server.send(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno")
    answer = client.response()
    assert (answer.status, answer.body) == (503, b"no")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/1.1 OK 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: 1\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40 + OK,
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
def test_garbage_from_the_app_is_502(client: Peer, upstream: Listening, garbage: bytes) -> None:
    client.send(get("raw"))
    server = upstream.accept()
    server.request()
    server.send(garbage)
    answer = client.response()
    while answer.status == 103:
        answer = client.response()
    assert (answer.status, answer.body.decode()) == (502, RESET + "protocol error")
    assert server.ended()
    client.send(get("raw"))  # the client's connection is none the worse
    fresh = upstream.accept()
    fresh.request()
    fresh.send(OK)
    assert client.response().body == b"ok"


def test_a_head_too_large_from_the_app_is_503(client: Peer, upstream: Listening) -> None:
    client.send(get("raw"))
    server = upstream.accept()
    server.request()
    server.send(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 90_000 + b"\r\ncontent-length: 0\r\n\r\n")
    assert client.response().status == 503


def test_garbage_within_a_chunked_answer_cuts_it(client: Peer, upstream: Listening) -> None:
    client.send(get("raw"))
    server = upstream.accept()
    server.request()
    server.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nnonsense\r\n")
    client.head()
    assert b"0\r\n\r\n" not in client.rest()


@pytest.mark.parametrize("how", ["close", "cut", "finish"])
def test_an_app_that_goes_away_before_its_answer_is_503(client: Peer, upstream: Listening, how: str) -> None:
    client.send(get("raw"))
    server = upstream.accept()
    server.request()
    getattr(server, how)()
    answer = client.response()
    assert (answer.status, answer.body.decode()) == (503, RESET + "connection termination")


def test_bytes_that_nobody_asked_for_end_a_connection(client: Peer, upstream: Listening) -> None:
    client.send(get("raw"))
    server = upstream.accept()
    server.request()
    server.send(OK + OK)  # the second could be taken for the next request's answer
    assert client.response().body == b"ok"
    assert server.ended()
    client.send(get("raw", "/next"))
    fresh = upstream.accept()
    assert fresh.request()[0] == "GET /next HTTP/1.1"
    fresh.send(OK)
    assert client.response().body == b"ok"


def test_a_client_that_resets_ends_the_app_s_request(sidecar: Sidecar, upstream: Listening) -> None:
    client = sidecar.client()
    client.send(get("raw"))
    server = upstream.accept()
    server.request()
    client.cut()
    assert server.ended()
    sidecar.settled("raw")


def test_a_client_that_vanishes_while_its_request_waits_for_a_connection(sidecar: Sidecar) -> None:
    client = sidecar.client()
    client.send(get("hole"))
    until(lambda: sidecar.active("hole")["pending"] == 1, "pending")
    client.cut()
    sidecar.settled("hole")
    until(lambda: sidecar.active("hole")["connections"] == 0, "the dial is over")


def test_an_idle_connection_that_the_app_has_closed_is_never_used(client: Peer, upstream: Listening) -> None:
    """The race of every keep-alive proxy: the look before use makes it harmless unless the close is still on its way."""
    for _ in range(50):
        client.send(get("raw"))
        server = upstream.accept()
        server.request()
        server.send(OK)
        server.close()  # without a word
        assert client.response().status == 200


def test_a_close_that_crosses_the_request_is_503_or_a_retry(client: Peer, upstream: Listening) -> None:
    client.send(get("raw"))
    server = upstream.accept()
    server.request()
    server.send(OK)
    assert client.response().status == 200
    client.send(get("raw"))
    server.request()  # it took the request, and then it went
    server.cut()
    answer = client.response()
    assert (answer.status, answer.body.decode()) == (503, RESET + "connection termination")


def test_the_access_log_names_each_end(client: Peer, upstream: Listening, sidecar: Sidecar) -> None:
    """By the flags of Envoy's access log."""
    for host, flags in (("nobody", "503 UF "), ("lost", "503 UF,URX "), ("none", "503 UH "), ("hole", "503 UF ")):
        before = sidecar.log().count(f" {flags}")
        client.ask(get(host))
        until(lambda flags=flags, before=before: sidecar.log().count(f" {flags}") > before, flags)
    for action, flags in (("close", "503 UC "), ("garbage", "502 UPE "), ("silence", "504 UT ")):
        before = sidecar.log().count(f" {flags}")
        client.send(get("hasty"))
        server = upstream.accept()
        server.request()
        if action == "close":
            server.close()
        elif action == "garbage":
            server.send(b"nonsense\r\n\r\n")
        client.response()
        until(lambda flags=flags, before=before: sidecar.log().count(f" {flags}") > before, flags)
    before = sidecar.log().count(" 0 DC ")
    client.send(get("raw"))
    upstream.accept().request()
    client.cut()
    until(lambda: sidecar.log().count(" 0 DC ") > before, "DC")


def test_a_black_hole_holds_up_nobody_else(sidecar: Sidecar, upstream: Listening) -> None:
    with sidecar.client() as stuck, sidecar.client() as client:
        stuck.send(get("hole"))
        client.send(get("raw"))
        server = upstream.accept()
        server.request()
        server.send(OK)
        assert client.response().body == b"ok"
        assert stuck.response().status == 503


def test_the_app_sees_the_sidecar_s_own_address(client: Peer, upstream: Listening, sidecar: Sidecar) -> None:
    client.send(get("raw"))
    server = upstream.accept()
    assert server.sock.getpeername()[0] == sidecar.ip
    server.request()
    server.send(OK)
    assert client.response().status == 200
