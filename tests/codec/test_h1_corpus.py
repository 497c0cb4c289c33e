"""The corpus of smuggling shapes, against the guard's callers end to end: server codec and client codec with recording ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshproxy.message.head import RequestHead, ResponseHead
from meshproxy.message.reason import Reason
from tests.codec.fakes import Client, Server, cuts, get

CORPUS = Path(__file__).parent / "corpus"
EXPECTED: dict[str, dict[str, Any]] = json.loads((CORPUS / "expected.json").read_text())
_LARGE = 4096  # bytes; longer cases are not fed byte by byte, only to keep the run short


def cases(side: str) -> list[str]:
    return [name for name, expected in EXPECTED.items() if expected["side"] == side]


def reads(name: str) -> list[list[bytes]]:
    data = (CORPUS / f"{name}.raw").read_bytes()
    if len(data) < _LARGE:
        return list(cuts(data, len(name)))
    return [[data], [data[at : at + 1000] for at in range(0, len(data), 1000)]]


def matches(head: RequestHead | ResponseHead | None, fields: dict[str, Any]) -> None:
    assert head is not None
    for field, value in fields.items():
        seen: Any = getattr(head, field)
        if field == "headers":
            seen = [[n.decode("latin-1"), v.decode("latin-1")] for n, v in seen]
        elif isinstance(seen, bytes):
            seen = seen.decode("latin-1")
        assert seen == value, field


def test_every_file_has_an_expectation() -> None:
    assert sorted(path.stem for path in CORPUS.glob("*.raw")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", cases("request"))
def test_request(name: str) -> None:
    expected = EXPECTED[name]
    for pieces in reads(name):
        server = Server().feed(*pieces)
        if expected["status"] == 200:
            assert not server.refused
            matches(server.requests[0].head, expected.get("head", {}))
            assert server.requests[0].ended
            continue
        assert not server.requests, "a refused request opened an exchange"
        ((reason, detail),) = server.refused
        assert reason.status == expected["status"]
        assert detail == expected.get("detail", detail)
        assert server.wire.out.startswith(b"HTTP/1.1 %d " % reason.status)
        assert b"\r\nconnection: close\r\n" in server.wire.out
        assert server.wire.out.endswith(b"\r\n\r\n" + reason.body)
        assert server.wire.calls == ["write_eof"]
        server.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not server.requests, "bytes after a refusal were read"


@pytest.mark.parametrize("name", cases("body"))
def test_body(name: str) -> None:
    for pieces in reads(name):
        server = Server().feed(*pieces)
        (request,) = server.requests
        assert request.error is not None
        assert request.error.status == EXPECTED[name]["status"]
        assert not request.ended
        assert not server.refused
        assert b"\r\nconnection: close\r\n" in server.wire.out
        server.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert len(server.requests) == 1


@pytest.mark.parametrize("name", cases("response"))
def test_response(name: str) -> None:
    expected = EXPECTED[name]
    method = expected["method"].encode()
    for pieces in reads(name):
        client = Client(get(b"a:1" if method == b"CONNECT" else b"/", method))
        for piece in pieces:
            client.feed(piece)
            if client.response.failed is not None:
                break
        if expected["reason"]:
            assert client.response.failed is Reason[expected["reason"]]
            assert not client.codec.reusable
            assert client.wire.calls == ["close"]
        else:
            assert client.response.failed is None
            matches(client.response.head, expected["head"])
