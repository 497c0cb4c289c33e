"""Endpoints on demand: what an authority names, and that their number is bounded."""

from __future__ import annotations

import pytest

from meshproxy.cluster import original
from meshproxy.cluster.original import Originals, is_address, split_authority
from meshproxy.message.head import RequestHead


def to(authority: bytes, scheme: bytes = b"") -> RequestHead:
    return RequestHead(b"GET", b"/", authority, [], scheme=scheme)


@pytest.mark.parametrize(
    ("authority", "found"),
    [
        (b"example.com", ("example.com", 80)),
        (b"EXAMPLE.com:8080", ("example.com", 8080)),
        (b"10.0.0.1:1", ("10.0.0.1", 1)),
        (b"[fd00::1]", ("fd00::1", 80)),
        (b"[fd00::1]:443", ("fd00::1", 443)),
        (b"", None),
        (b":80", None),
        (b"a:0", None),
        (b"a:65536", None),
        (b"a:8o", None),
        (b"a:-1", None),
        (b"fd00::1", None),
        (b"[fd00::1", None),
        (b"[fd00::1]x", None),
        (b"\xc3\xa9.com", None),
        ("a:\u0663".encode(), None),
    ],
)
def test_authorities(authority: bytes, found: tuple[str, int] | None) -> None:
    assert split_authority(authority, 80) == found


@pytest.mark.parametrize(
    ("authority", "yes"), [(b"10.0.0.1", True), (b"10.0.0.1:80", True), (b"[::1]:80", True), (b"a.b:80", False), (b"", False)]
)
def test_addresses(authority: bytes, yes: bool) -> None:
    assert is_address(authority) == yes


def test_https_has_its_own_default_port() -> None:
    found = Originals().find(to(b"a", b"https"), 0.0)
    assert found is not None and found.port == 443


def test_the_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "LIMIT", 16)
    originals = Originals()
    kept = [originals.find(to(b"h%d" % n), float(n)) for n in range(16)]
    for endpoint in kept[1:]:
        assert endpoint is not None
        endpoint.active = 1
    fresh = originals.find(to(b"new"), 20.0)  # h0, the only idle one, makes room
    assert fresh is not None and len(originals.all()) == 16
    fresh.active = 1
    assert originals.find(to(b"newer"), 21.0) is None
    assert originals.sweep(21.0) == [kept[0]] and kept[0] is not None and not kept[0].live
    assert originals.sweep(21.0) == []
