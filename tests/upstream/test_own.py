"""What reaches our own listeners, however it is written."""

from __future__ import annotations

import pytest

from meshproxy.upstream.own import plain, reaches

PAGES = [("127.61.0.1", 15000), ("127.61.0.1", 15001)]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::FFFF:7f00:1", "127.0.0.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("rating.default", "rating.default"),
        ("fe80::1%eth0", "fe80::1"),
        ("::1%lo", "::1"),
    ],
)
def test_an_address_has_one_form(given: str, found: str) -> None:
    assert plain(given) == found


@pytest.mark.parametrize(
    ("address", "port", "found"),
    [
        ("127.61.0.1", 15000, True),
        ("127.61.0.1", 15001, True),
        ("127.61.0.1", 8080, False),
        ("127.61.0.2", 15000, False),
        ("127.0.0.1", 15000, False),
        ("::ffff:127.61.0.1", 15000, True),
        ("0.0.0.0", 15000, True),
        ("::", 15000, True),
        ("0.0.0.0", 8080, False),
    ],
)
def test_listeners_on_one_address(address: str, port: int, found: bool) -> None:
    assert reaches(PAGES, address, port) is found


@pytest.mark.parametrize(
    ("address", "found"), [("127.0.0.1", True), ("127.9.9.9", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False)]
)
@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])
def test_a_listener_on_every_address(everywhere: str, address: str, found: bool) -> None:
    assert reaches([(everywhere, 15000)], address, 15000) is found
