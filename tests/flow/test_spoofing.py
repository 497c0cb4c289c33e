"""Nobody says of himself what only the mesh may say: any spelling, place and repetition, in front of any listener.

The app is modelled as the worst of its kind: it folds case, reads ``_`` as ``-`` (CGI, WSGI) and takes trailers for headers.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.head import spellings
from tests.flow.memnet import OK, World
from tests.flow.test_authn import GOOD, world_of
from tests.policy.jwt_keys import provider

JWT = provider(claim_headers=(("x-jwt-user", "sub"), ("x-jwt-missing", "nothing")), payload_header="x-jwt-payload")
VOUCHED = (b"x-jwt-user", b"x-jwt-missing", b"x-jwt-payload")
MESH = (b"x-forwarded-client-cert", b"x-envoy-peer-metadata", b"x-envoy-peer-metadata-id")
EDGE = (b"x-forwarded-proto", b"x-envoy-internal", b"x-envoy-external-address", b"x-envoy-original-path")


@st.composite
def spelled(draw: Any, names: tuple[bytes, ...]) -> bytes:
    name = draw(st.sampled_from(sorted(spellings(draw(st.sampled_from(names))))))
    upper = draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    return bytes(byte - 32 if up and 97 <= byte <= 122 else byte for byte, up in zip(name, upper, strict=True))


@st.composite
def attack(draw: Any, names: tuple[bytes, ...]) -> bytes:
    """A request whose forgeries all say ``forged``."""
    line = draw(st.sampled_from([b"POST /a HTTP/1.1", b"POST http://shop:8080/a HTTP/1.1", b"POST /b?x=1 HTTP/1.1"]))
    lines = [line, b"Host: shop:8080", b"X-App: mine"]
    for name in draw(st.lists(spelled(names), max_size=5)):
        lines.insert(draw(st.integers(1, len(lines))), name + draw(st.sampled_from([b": forged", b":forged, a", b":  forged\t"])))
    if draw(st.booleans()):
        lines.append(b"Connection: keep-alive, " + draw(spelled(names)))
    if draw(st.booleans()):
        lines.append(b"Authorization: Bearer " + GOOD)
    trailers = draw(st.lists(spelled(names), max_size=3))
    if trailers:
        lines.append(b"Transfer-Encoding: chunked")
        return b"\r\n".join([*lines, b"", b"1", b"a", b"0", *(name + b": forged" for name in trailers), b"", b""])
    return b"\r\n".join([*lines, b"Content-Length: 0", b"", b""])


def reaches(world: World, data: bytes) -> list[bytes]:
    """What the app gets, request by request."""
    client = world.client()
    client.deliver(data)
    got = []
    while world.dials:
        app = world.accept()
        while sent := app.take():
            got.append(sent)
            app.deliver(OK)
        app.lose()
    return got


@pytest.mark.parametrize(("direction", "names"), [("inbound", VOUCHED + MESH), ("gateway", VOUCHED + MESH + EDGE)])
def test_no_forgery_reaches_the_app(direction: str, names: tuple[bytes, ...]) -> None:
    world = world_of(direction, JWT)

    @given(st.lists(attack(names), min_size=1, max_size=3))
    def judge(requests: list[bytes]) -> None:
        for sent in reaches(world, b"".join(requests)):  # pipelined: none has anything of the one before
            assert b"forged" not in sent
            assert b"x-app: mine" in sent
        del world.records[:]

    judge()


@pytest.mark.parametrize("direction", ["inbound", "gateway"])
def test_a_second_request_has_nothing_of_the_first_one_s_token(direction: str) -> None:
    world = world_of(direction, JWT)
    head = b"GET /a HTTP/1.1\r\nhost: shop:8080\r\n"
    first, second = reaches(world, head + b"authorization: Bearer " + GOOD + b"\r\n\r\n" + head + b"\r\n")
    assert b"x-jwt-user: ann" in first
    assert b"x-jwt" not in second
