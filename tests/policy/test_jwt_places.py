"""Where tokens are found, and how they are taken out."""

from __future__ import annotations

import pytest

from meshproxy.message.head import Headers, RequestHead
from meshproxy.model.security import JwtProvider
from meshproxy.policy.jwt_places import Places, without_params


def places(**fields: object) -> Places:
    return Places((JwtProvider(source="s", issuer="i", **fields),))  # type: ignore[arg-type]


def found(one: Places, headers: Headers, target: bytes = b"/") -> list[tuple[str, bytes]]:
    request = RequestHead(b"GET", target, b"h", headers)
    return [(str(one.all[index]), text) for index, text in one.extract(request)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Bearer a.b.c", [b"a.b.c"]),
        (b"bearer a.b.c", []),  # the prefix is literal
        (b"Bearera.b.c", []),
        (b"Bearer", []),
        (b"Basic dTpw", []),
        (b"Bearer   a.b.c", [b"a.b.c"]),
        (b"Basic x, Bearer a.b.c", [b"a.b.c"]),  # Envoy looks anywhere in the value
        (b"Bearer \xc3\xbc", [b"Bearer \xc3\xbc"]),  # nothing like a token: the whole value, which has no form
        (b'Bearer "a.b.c"', [b'a.b.c"']),
    ],
)
def test_the_bearer_header(value: bytes, expected: list[bytes]) -> None:
    assert [text for _, text in found(places(), [(b"authorization", value)])] == expected


def test_default_locations() -> None:
    got = found(places(), [(b"authorization", b"Bearer A"), (b"authorization", b"Bearer B")], b"/p?access_token=C&a=b")
    assert got == [("header authorization", b"A"), ("header authorization", b"B"), ("query parameter access_token", b"C")]


def test_any_location_of_its_own_switches_the_defaults_off() -> None:
    headers: Headers = [(b"authorization", b"Bearer A"), (b"x-token", b"B"), (b"cookie", b"a=1; session=C; t=D")]
    target = b"/?access_token=E&tok%65n=F%2Eg"
    assert found(places(from_headers=(("X-Token", ""),)), headers, target) == [("header x-token", b"B")]
    assert found(places(from_params=("token",)), headers, target) == [("query parameter token", b"F.g")]
    assert found(places(from_cookies=("session",)), headers, target) == [("cookie session", b"C")]


def test_one_header_with_several_prefixes() -> None:
    one = places(from_headers=(("x-t", "A "), ("x-t", "B "), ("x-t", "")))
    assert [text for _, text in found(one, [(b"x-t", b"B tok")])] == [b"B tok", b"tok"]


def test_every_value_counts() -> None:
    one = places(from_params=("t",), from_cookies=("c",))
    headers: Headers = [(b"cookie", b'c=1;c="2"'), (b"cookie", b"x=c=9; c=3;c")]
    assert [text for _, text in found(one, headers, b"/?t=a&T=x&t=b&t")] == [b"a", b"b", b"", b"1", b"2", b"3"]


def test_what_only_we_write_is_taken_out_and_never_read() -> None:
    one = places(claim_headers=(("X-Role", "role"),), payload_header="x-payload", from_headers=(("x-role", ""), ("x-jwt", "")))
    request = RequestHead(b"GET", b"/", b"h", [(b"x-role", b"admin"), (b"a", b"b"), (b"x-payload", b"e30"), (b"x-role", b"x")])
    headers = request.headers
    assert one.extract(request) == []
    assert request.headers == [(b"a", b"b")]
    assert request.headers is headers  # the record shows the same list


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a", b"/a"),
        (b"/a?t=1", b"/a"),
        (b"/a?x=%20&t=1&y", b"/a?x=%20&y"),
        (b"/a?%74=1&t", b"/a"),
        (b"/a?tt=1", b"/a?tt=1"),
        (b"/a?", b"/a?"),
    ],
)
def test_parameters_are_taken_out(target: bytes, expected: bytes) -> None:
    assert without_params(target, frozenset((b"t",))) == expected


def test_what_only_the_proxy_writes_is_taken_out_in_every_spelling() -> None:
    one = places(claim_headers=(("X-Jwt-User", "sub"),), payload_header="x-payload")
    headers: Headers = [
        (b"x-jwt-user", b"1"),
        (b"x_jwt_user", b"2"),
        (b"x-jwt_user", b"3"),
        (b"x_payload", b"4"),
        (b"x_jwt", b"5"),
    ]
    assert found(one, headers) == []
    assert headers == [(b"x_jwt", b"5")]
