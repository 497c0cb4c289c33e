"""Key sets of issuers: where they may come from, when they are fetched, and that a bad issuer hurts nobody else."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest

from control.files import write_private
from control.sources.addresses import forbidden
from control.sources.fetching import Fetcher, FetchProblem, public_keys
from control.sources.jwks import Jwks
from control.sources.keysets import EVICT, FIRST_RETRY, REFRESH, RETRY, Kept, KeySets
from control.tasks import cancel, spawn
from control.world.security import KeysAt
from tests.certs import Authority

KEYS = json.dumps({"keys": [{"kty": "RSA", "n": "x", "e": "AQAB"}]})
CANONICAL = '{"keys":[{"e":"AQAB","kty":"RSA","n":"x"}]}'


# -- addresses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "::ffff:169.254.169.254",
        "2002:a9fe:a9fe::",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "::169.254.169.254",
        "2001:0:1::5601:5601",  # Teredo: the client's address is inverted
        "::ffff:100.100.100.200",
        "no address",
    ],
)
@pytest.mark.parametrize("loopback", [False, True])
def test_never_fetched_from(address: str, loopback: bool) -> None:
    assert forbidden(address, loopback=loopback) != ""


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "172.16.0.9", "fd12::1", "93.184.216.34", "2606:4700::1111"])
def test_private_and_public_addresses_are_allowed(address: str) -> None:
    assert forbidden(address, loopback=False) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "127.7.0.20", "::1", "::ffff:127.0.0.1"])
def test_loopback_only_where_the_mesh_is(address: str) -> None:
    assert forbidden(address, loopback=True) == ""
    assert "loopback" in forbidden(address, loopback=False)


# -- fetching ------------------------------------------------------------------------------------------------------------

Answer = Callable[[str], bytes | None]  # path -> the whole response; None: never an answer


def ok(body: str, *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", f"content-length: {len(body)}", *headers))
    return f"{head}\r\n{body}".encode()


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()


@asynccontextmanager
async def serving(answer: Answer, context: ssl.SSLContext | None = None) -> Any:
    """An issuer on a free port; yields ``host:port``, and the request lines it saw."""
    seen: list[str] = []
    open_: set[asyncio.StreamWriter] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            seen.append(head)
            found = answer(head.split(" ")[1])
            if found is None:
                await reader.read()
            else:
                writer.write(found)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            open_.discard(writer)
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()
        for writer in list(open_):
            writer.transport.abort()
        await server.wait_closed()


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


def problem(answer: Answer, path: str = "/jwks", timeout: str = "", loopback: bool = True) -> str:
    """Why fetching failed."""
    told: list[str] = []

    async def story() -> None:
        async with serving(answer) as (at, _):
            with pytest.raises(FetchProblem) as error:
                await Fetcher(loopback=loopback).fetch(KeysAt(f"http://{at}{path}", "", timeout))
            told.append(str(error.value))

    run(story)
    return told[0]


def test_a_key_set_is_fetched_without_private_parts() -> None:
    async def story() -> None:
        leaking = json.dumps({"keys": [{"kty": "RSA", "n": "x", "d": "secret", "e": "AQAB", "p": "secret"}], "more": 1})
        async with serving(lambda path: ok(leaking)) as (at, seen):
            assert await Fetcher(loopback=True).fetch(KeysAt(f"http://{at}/a/b?c=d#e", "", "")) == CANONICAL
        assert seen[0].startswith("GET /a/b?c=d HTTP/1.1\r\n")
        assert "identity" in seen[0]

    run(story)


def test_a_symmetric_key_stays_a_key() -> None:
    assert public_keys(b'{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}') == '{"keys":[{"k":"c2VjcmV0","kty":"oct"}]}'


def test_redirects_are_followed_and_counted() -> None:
    async def story() -> None:
        async with serving(lambda path: redirect("/2") if path == "/1" else ok(KEYS)) as (at, seen):
            assert await Fetcher(loopback=True).fetch(KeysAt(f"http://{at}/1", "", "")) == CANONICAL
            assert len(seen) == 2

    run(story)
    assert problem(lambda path: redirect("/again")) == "more than 3 redirects"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answered 404"),
        (b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", "a redirect without a location"),
        (redirect("file:///etc/passwd"), "only http"),
        (redirect("http://user:password@127.0.0.1/"), "without user and password"),
        (redirect("http://169.254.169.254/latest"), "169.254.169.254 is 169.254.169.254, a link-local address"),
        (redirect("http://2852039166/"), "169.254.169.254, a link-local address"),
        (redirect("http://[::ffff:a9fe:a9fe]/"), "link-local"),
        (ok("<html>"), "is not JSON"),
        (ok("[" * 100_000), "is not JSON"),
        (ok("{}"), "is not a JSON Web Key Set"),
        (ok('{"keys": []}'), "without keys"),
        (ok('{"keys": [1]}'), "without keys"),
        (ok("x" * ((1 << 20) + 1)), "is larger than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", "RemoteProtocolError"),
        (b"not http\r\n\r\n", "RemoteProtocolError"),
    ],
)
def test_what_is_no_key_set(answer: bytes, words: str) -> None:
    told = problem(lambda path: answer)
    assert words in told
    assert "\n" not in told
    assert len(told) < 400


def test_a_slow_issuer_is_given_up() -> None:
    assert problem(lambda path: None, timeout="50ms") == "no answer within 0.05 s"


def test_loopback_is_refused_where_the_mesh_is_elsewhere() -> None:
    assert "127.0.0.1 is 127.0.0.1, a loopback address" in problem(lambda path: ok(KEYS), loopback=False)


def test_a_name_is_judged_by_the_address_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS may say something else each time: what was judged is what is dialled."""

    async def story() -> None:
        answers = [["10.0.0.1"], ["169.254.169.254"], ["169.254.169.254", "10.0.0.2"]]
        dialled: list[str] = []

        class Below(httpcore.AsyncNetworkBackend):
            async def connect_tcp(self, host: str, *rest: Any, **more: Any) -> httpcore.AsyncNetworkStream:
                dialled.append(host)
                raise httpcore.ConnectError("nobody there")

        monkeypatch.setattr(httpcore, "AnyIOBackend", Below)
        loop = asyncio.get_running_loop()

        async def resolve(host: str, port: int, **more: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answers.pop(0)]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        fetcher = Fetcher(loopback=False)
        told = []
        for _ in range(3):
            with pytest.raises(FetchProblem) as error:
                await fetcher.fetch(KeysAt("http://idp.example/jwks", "", ""))
            told.append(str(error.value))
        assert dialled == ["10.0.0.1", "10.0.0.2"]
        assert "nobody there" in told[0]
        assert told[1] == ("idp.example is 169.254.169.254, a link-local address: keys are never fetched from there")

    run(story)


def test_tls_is_verified_and_never_left(tmp_path: Path) -> None:
    async def story() -> None:
        authority, stranger = Authority(), Authority("stranger")
        pair = authority.issue(dns=("localhost",), ip=("127.0.0.1",))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        file = tmp_path / "both.pem"
        file.write_bytes(pair.both)
        server.load_cert_chain(file)
        trusting, distrusting = (ssl.create_default_context(cadata=a.pem.decode()) for a in (authority, stranger))
        async with serving(lambda path: redirect("http://127.0.0.1:1/") if path == "/down" else ok(KEYS), server) as (at, _):
            assert await Fetcher(loopback=True, context=trusting).fetch(KeysAt(f"https://{at}/", "", "")) == CANONICAL
            with pytest.raises(FetchProblem, match="certificate verify failed"):
                await Fetcher(loopback=True, context=distrusting).fetch(KeysAt(f"https://{at}/", "", ""))
            with pytest.raises(FetchProblem, match="from https to http is not followed"):
                await Fetcher(loopback=True, context=trusting).fetch(KeysAt(f"https://{at}/down", "", ""))

    run(story)


def test_discovery() -> None:
    async def story() -> None:
        places: list[str] = []

        def answer(path: str) -> bytes:
            if path == "/realm/.well-known/openid-configuration":
                return ok(json.dumps({"issuer": "x", "jwks_uri": f"http://{places[0]}/keys"}))
            return ok(KEYS) if path == "/keys" else ok("{}")

        async with serving(answer) as (at, _):
            places.append(at)
            fetcher = Fetcher(loopback=True)
            for issuer in (f"http://{at}/realm", f"http://{at}/realm/"):
                assert await fetcher.fetch(KeysAt("", issuer, "")) == CANONICAL
            with pytest.raises(FetchProblem, match="names no jwks_uri"):
                await fetcher.fetch(KeysAt("", f"http://{at}", ""))
            with pytest.raises(FetchProblem, match="its issuer is no URL"):
                await fetcher.fetch(KeysAt("", "testing@secure.istio.io", ""))

    run(story)


# -- when ----------------------------------------------------------------------------------------------------------------

A, B = KeysAt("http://a/", "", ""), KeysAt("", "https://b", "7s")


def test_the_times_of_fetches() -> None:
    sets = KeySets()
    assert sets.next_due() is None
    sets.want([(A, "one"), (B, "two"), (A._replace(timeout="9s"), "three")], 100.0)
    assert sets.take_due(100.0) == [A._replace(timeout="9s"), B]
    assert sets.take_due(100.0) == []  # they are under way
    assert sets.fetched(A, "K", 101.0)
    wait, now = FIRST_RETRY, 101.0
    for _ in range(10):  # there was never a set: tokens fail, so hurry, up to a minute
        sets.failed(B, "down", now)
        assert sets.next_due() == now + wait
        assert sets.take_due(now + wait - 0.01) == []
        assert sets.take_due(now + wait) == [B]
        now, wait = now + wait, min(RETRY, 2 * wait)
    assert sets.table() == {"http://a/": "K"}
    assert sets.take_due(101.0 + REFRESH) == [A._replace(timeout="9s")]
    sets.failed(A, "down", 2000.0)
    assert sets.table() == {"http://a/": "K"}  # the last good set stays in force
    assert sets.take_due(2000.0 + RETRY) == [A._replace(timeout="9s")]
    assert not sets.fetched(A, "K", 2100.0)
    assert sets.fetched(A, "L", 2200.0)
    report = sets.report()[0]
    assert report == {
        "location": "http://a/",
        "askedBy": ["one", "three"],
        "lastFetch": 2200.0,
        "lastTry": 2200.0,
        "nextTry": 2200.0 + REFRESH,
        "error": "",
        "usable": True,
    }


def test_what_nobody_asks_for_goes_after_a_week() -> None:
    sets = KeySets()
    sets.want([(A, "one")], 0.0)
    sets.take_due(0.0)
    sets.fetched(A, "K", 0.0)
    sets.want([], 10.0)
    assert sets.take_due(10.0 + 2 * REFRESH) == []
    assert sets.next_due() == 10.0 + EVICT
    sets.want([(A, "one")], EVICT)  # wanted again in time: in force at once, and fetched since it is old
    assert sets.table() == {"http://a/": "K"}
    assert sets.take_due(EVICT) == [A]
    sets.fetched(A, "K", EVICT)
    sets.want([], EVICT)
    sets.take_due(2 * EVICT - 1)
    assert sets.table()
    sets.take_due(2 * EVICT)
    assert not sets.table()


def test_a_clock_that_is_put_back_stops_nothing() -> None:
    sets = KeySets()
    sets.want([(A, "one")], 1e9)
    sets.take_due(1e9)
    sets.fetched(A, "K", 1e9)
    assert sets.take_due(0.0) == [A]


# -- the whole -----------------------------------------------------------------------------------------------------------


class Issuer:
    """Answers when told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gates: dict[str, asyncio.Future[str]] = {}

    async def fetch(self, at: KeysAt) -> str:
        self.asked.append(at.place)
        future = self.gates[at.place] = asyncio.get_running_loop().create_future()
        text: str = await future
        return text

    async def until(self, count: int) -> None:
        while len(self.asked) < count:
            await asyncio.sleep(0)


def test_a_slow_issuer_delays_no_other(tmp_path: Path) -> None:
    async def story() -> None:
        issuer = Issuer()
        tables: list[dict[str, str]] = []
        counted: list[bool] = []
        changed = asyncio.Event()

        def note(table: Mapping[str, str]) -> None:
            tables.append(dict(table))
            changed.set()

        jwks = Jwks(tmp_path / "k.json", issuer.fetch, note, counted.append, wall=lambda: 50.0)
        assert jwks.load() == {}
        task = spawn(jwks.run(), "jwks")
        jwks.want([(A, "one"), (B, "two")])
        await issuer.until(2)
        issuer.gates[B.place].set_result("KB")
        await changed.wait()
        assert tables == [{B.place: "KB"}]
        other = KeysAt("http://c/", "", "")
        jwks.want([(A, "one"), (B, "two"), (other, "three")])
        await issuer.until(3)
        issuer.gates[A.place].set_exception(FetchProblem("down"))
        issuer.gates[other.place].set_exception(RuntimeError("a bug"))
        while not all(row["error"] or row["usable"] for row in jwks.report()):
            await asyncio.sleep(0)
        assert [(row["location"], row["error"]) for row in jwks.report()] == [
            (A.place, "down"),
            (other.place, "internal error: RuntimeError"),
            (B.place, ""),
        ]
        assert sorted(counted) == [False, False, True]
        while not (tmp_path / "k.json").exists():
            await asyncio.sleep(0)
        await cancel(task)

    run(story)
    # a restart while the issuer is down: the last good set is in force
    again = Jwks(tmp_path / "k.json", Issuer().fetch, wall=lambda: 60.0)
    assert again.load() == {B.place: "KB"}
    assert (tmp_path / "k.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"place": "x"}]', b"\xff"])
def test_a_spoilt_file_is_as_none(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    write_private(tmp_path / "k.json", content)
    assert Jwks(tmp_path / "k.json", Issuer().fetch, wall=lambda: 0.0).load() == {}
    assert "fetched anew" in caplog.text


def test_what_is_kept_comes_back() -> None:
    sets = KeySets()
    kept = [Kept("http://a/", "K", 5.0, 6.0)]
    sets.restore(kept, 10.0)
    assert sets.kept() == kept
    assert sets.table() == {"http://a/": "K"}
