"""Local replies: the table of B4, and that no two replies share a header list."""

from __future__ import annotations

import pytest

from meshproxy.message.head import RequestHead
from meshproxy.message.reason import Reason, reset_body
from meshproxy.policy.replies import as_grpc, date_header, local_reply, plain_reply

RESET = b"upstream connect error or disconnect/reset before headers. reset reason: "


@pytest.mark.parametrize(
    ("reason", "status", "body"),
    [
        (Reason.NO_ROUTE, 404, b""),
        (Reason.NO_CLUSTER, 503, b""),
        (Reason.NO_HEALTHY_UPSTREAM, 503, b"no healthy upstream"),
        (Reason.OVERFLOW, 503, RESET + b"overflow"),
        (Reason.UPSTREAM_TERMINATION, 503, RESET + b"connection termination"),
        (Reason.UPSTREAM_TIMEOUT, 504, b"upstream request timeout"),
        (Reason.UPSTREAM_PROTOCOL_ERROR, 502, RESET + b"protocol error"),
        (Reason.BAD_REQUEST, 400, b"Bad Request"),
        (Reason.RBAC_DENIED, 403, b"RBAC: access denied"),
        (Reason.EGRESS_BLOCKED, 502, b""),
    ],
)
def test_replies(reason: Reason, status: int, body: bytes) -> None:
    reply = local_reply(reason)
    assert (reply.head.status, reply.body, reply.head.length, reply.reason) == (status, body, len(body), reason)
    headers = dict(reply.head.headers)
    assert headers[b"content-length"] == b"%d" % len(body)
    assert headers.get(b"content-type") == (b"text/plain" if body else None)
    assert headers.get(b"x-envoy-overloaded") == (b"true" if reason is Reason.OVERFLOW else None)
    assert reply.head.close is reason.close


def test_a_body_of_ones_own() -> None:
    body = reset_body(Reason.OVERFLOW, retried=True)
    reply = local_reply(Reason.OVERFLOW, body, "detail")
    assert (reply.body, reply.head.length, reply.detail) == (body, len(body), "detail")
    assert dict(reply.head.headers)[b"content-length"] == b"%d" % len(body)
    assert dict(reply.head.headers)[b"x-envoy-overloaded"] == b"true"


def test_every_reply_owns_its_headers() -> None:
    for reason in Reason:
        local_reply(reason).head.headers.append((b"server", b"x"))
        assert (b"server", b"x") not in local_reply(reason).head.headers


def test_plain_replies() -> None:
    assert plain_reply(200, b"hi").head.headers == [(b"content-length", b"2"), (b"content-type", b"text/plain")]
    for status in (204, 304):
        reply = plain_reply(status, b"ignored")
        assert (reply.head.headers, reply.body) == ([], b"")


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (784111777.9, b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (0.0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (1e9, b"Sun, 09 Sep 2001 01:46:40 GMT"),
    ],
)
def test_dates(wall: float, text: bytes) -> None:
    assert date_header(wall) == (b"date", text) == date_header(wall)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, 13),
        (401, 16),
        (403, 7),
        (404, 12),
        (429, 14),
        (502, 14),
        (503, 14),
        (504, 14),
        (408, 2),
        (500, 2),
        (301, 2),
        (200, 2),
    ],
)
def test_a_grpc_client_gets_the_status_in_its_own_words(status: int, expected: int) -> None:
    reply = plain_reply(status, b"why: 100% \xc3\xbc\n", [(b"x-more", b"1")])
    as_grpc(reply, RequestHead(b"POST", b"/s/m", b"h", [(b"content-type", b"application/grpc")]))
    assert (reply.head.status, reply.head.length, reply.body) == (200, 0, b"")
    assert reply.head.headers == [
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"%d" % expected),
        (b"grpc-message", b"why: 100%25 %C3%BC%0A"),
        (b"content-length", b"0"),
        (b"x-more", b"1"),
    ]


def test_nobody_else_gets_a_grpc_answer() -> None:
    for kind in (b"application/grpc-web", b"application/grpcx", b"text/plain", b"application/json"):
        reply = local_reply(Reason.NO_ROUTE)
        as_grpc(reply, RequestHead(b"POST", b"/", b"h", [(b"content-type", kind)]))
        assert reply.head.status == 404
    ready = plain_reply(200, b"", [(b"grpc-status", b"5")])
    as_grpc(ready, RequestHead(b"POST", b"/", b"h", [(b"content-type", b"application/grpc+json")]))
    assert (b"grpc-status", b"5") in ready.head.headers
    assert sum(name == b"grpc-status" for name, _ in ready.head.headers) == 1
