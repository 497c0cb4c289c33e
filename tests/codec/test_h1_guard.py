"""The guard by itself: the order of its judgements, limits at their edges, trailers. The shapes themselves are in the corpus."""

from __future__ import annotations

import pytest

from meshproxy.codec.h1_guard import check_partial, check_request, check_response, read_trailers
from meshproxy.codec.h1_rules import H1Limits, authority_ok, connection_tokens, split_target
from meshproxy.message.reason import Reason

LIMITS = H1Limits(head=200, headers=3)
START = b"GET / HTTP/1.1\r\nHost: a\r\n"


def test_size_and_wrong_bytes_are_judged_in_the_order_they_arrive() -> None:
    early = START + b"x: \n" + b"a" * 300
    late = START + b"x: " + b"a" * 300 + b"\n"
    assert check_partial(early, 0, LIMITS) == (Reason.BAD_REQUEST, "http1.invalid_characters")
    assert check_partial(late, 0, LIMITS) == (Reason.HEADERS_TOO_LARGE, "request_headers_too_large")


def test_a_carriage_return_at_the_end_of_a_read_may_still_get_its_line_feed() -> None:
    assert check_partial(START[:-1], 0, LIMITS) is None
    assert check_partial(START[:-1] + b"x", len(START) - 1, LIMITS) is not None
    assert check_partial(START, len(START) - 1, LIMITS) is None
    assert check_partial(START[:-2] + b"\n", len(START) - 2, LIMITS) is not None


def test_limits_hold_to_the_byte_and_to_the_header() -> None:
    head = START + b"x: " + b"a" * (200 - len(START) - 7) + b"\r\n\r\n"
    assert len(head) == 200
    assert check_request(head, LIMITS) is None
    assert check_request(head.replace(b"x: ", b"xx: "), LIMITS) == (Reason.HEADERS_TOO_LARGE, "request_headers_too_large")
    assert check_request(START + b"a: 1\r\nb: 2\r\n\r\n", LIMITS) is None
    assert check_request(START + b"a: 1\r\nb: 2\r\nc: 3\r\n\r\n", LIMITS) == (Reason.HEADERS_TOO_LARGE, "too_many_headers")
    many = b"HTTP/1.1 200 OK\r\n" + b"a: 1\r\n" * 4 + b"\r\n"
    assert check_response(many, LIMITS) == (Reason.BAD_REQUEST, "http1.too_many_headers")


def test_trailers() -> None:
    assert read_trailers(b"\r\n", LIMITS) == []
    assert read_trailers(b"X: a\r\nY:\r\n\r\n", LIMITS) == [(b"x", b"a"), (b"y", b"")]
    assert isinstance(read_trailers(b"X: a\r\n b\r\n\r\n", LIMITS), tuple)


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ([b"close"], [b"close"]),
        ([b"Keep-Alive, ,X-A", b"x-b"], [b"keep-alive", b"x-a", b"x-b"]),
        ([b""], []),
        ([b"content-length"], None),
        ([b"X-Forwarded-Proto"], None),
        ([b"a b"], None),
        ([b",".join([b"x"] * 10)], [b"x"] * 10),
        ([b",".join([b"x"] * 11)], None),
    ],
)
def test_connection_tokens(values: list[bytes], tokens: list[bytes] | None) -> None:
    assert connection_tokens(values) == tokens


@pytest.mark.parametrize(
    "good", [b"a", b"a.b:80", b"1.2.3.4:65535", b"[::1]", b"[fe80::1%25eth0]:8080", b"a_b", b"xn--bcher-kva"]
)
def test_authorities(good: bytes) -> None:
    assert authority_ok(good)
    assert split_target(b"GET", b"http://" + good + b"/x#y") == (b"GET", b"/x", b"http", good, True)
