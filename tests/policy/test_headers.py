"""Header operations: order, overwriting, the host, formatters, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.head import Headers
from meshproxy.model.route import HeaderOps
from meshproxy.policy.headers import compile_ops
from meshproxy.policy.invalid import Invalid
from tests.policy.fakes import get, record_of


def edited(ops: HeaderOps, headers: Headers) -> Headers:
    request = get()
    request.headers = list(headers)
    edits = compile_ops(((ops, "ops"),))
    assert edits is not None
    edits.request(request, record_of(request))
    return request.headers


def test_remove_then_set_then_add() -> None:
    ops = HeaderOps(remove=("a", "b"), set=(("b", "2"), ("c", "3")), add=(("c", "4"), ("a", "5")))
    assert edited(ops, [(b"a", b"1"), (b"x", b"1"), (b"c", b"1"), (b"b", b"1"), (b"c", b"2")]) == [
        (b"x", b"1"),
        (b"c", b"3"),
        (b"b", b"2"),
        (b"c", b"4"),
        (b"a", b"5"),
    ]


def test_setting_the_host_rewrites_the_authority() -> None:
    request = get()
    record = record_of(request)
    edits = compile_ops(((HeaderOps(set=(("host", "a.example"),)), ""), (HeaderOps(set=((":authority", "%REQ(x-to)%"),)), "")))
    assert edits is not None
    edits.request(request, record)
    assert (request.authority, request.headers) == (b"a.example", [])  # an empty value changes nothing
    request.headers.append((b"x-to", b"b.example"))
    edits.request(request, record)
    assert request.authority == record.authority == b"b.example"


def test_formatted_values() -> None:
    ops = HeaderOps(
        set=(("x-path", "%REQ(:path)%"), ("gone", "%REQ(nothing)%"), ("pct", "100%%"), ("empty", "")),
        add=(("no", "%REQ(nothing)%"),),
    )
    assert edited(ops, [(b"gone", b"1")]) == [(b"x-path", b"/"), (b"pct", b"100%"), (b"empty", b"")]


def test_response_operations_see_the_response() -> None:
    request = get()
    record = record_of(request)
    headers = [(b"etag", b"1"), (b"server", b"x")]
    record.response_headers, record.status = headers, 200
    edits = compile_ops(((HeaderOps(set=(("x-e", "%RESP(ETag)%-%RESPONSE_CODE%"),), remove=("server",)), "o"),), response=True)
    assert edits is not None
    edits.response(headers, record)
    assert headers == [(b"etag", b"1"), (b"x-e", b"1-200")]


@pytest.mark.parametrize(
    ("ops", "path", "says"),
    [
        (HeaderOps(add=(("host", "a"),)), "ops.add[0]", "only the request's host can be set"),
        (HeaderOps(remove=(":path",)), "ops.remove[0]", "cannot be added or removed"),
        (HeaderOps(set=((":path", "/"),)), "ops.set[0]", "cannot be added or removed"),
        (HeaderOps(set=(("a b", "1"),)), "ops.set[0]", "not a header name"),
        (HeaderOps(set=(("a", "1"), ("content-length", "1"))), "ops.set[1]", "framing"),
        (HeaderOps(add=(("transfer-encoding", "chunked"),)), "ops.add[0]", "framing"),
        (HeaderOps(set=(("a", "1\r\nb: 2"),)), "ops.set[0]", "line break"),
        (HeaderOps(set=(("a", "100%"),)), "ops.set[0]", "%%"),
        (HeaderOps(set=(("a", "%REQUEST(x)%"),)), "ops.set[0]", "unknown"),
    ],
)
def test_what_is_refused(ops: HeaderOps, path: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        compile_ops(((ops, "ops"),))
    assert caught.value.path == path
    assert says in caught.value.message


def test_setting_host_on_a_response_is_refused() -> None:
    with pytest.raises(Invalid):
        compile_ops(((HeaderOps(set=(("host", "a"),)), "ops"),), response=True)


def test_nothing_to_do_is_nothing() -> None:
    assert compile_ops(((None, ""), (HeaderOps(), ""))) is None


NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["1", "2", ""])
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=5)


@given(PAIRS, st.lists(NAMES, max_size=2), PAIRS, PAIRS)
def test_the_outcome_by_name_is_what_the_words_say(
    before: list[tuple[str, str]], removes: list[str], sets: list[tuple[str, str]], adds: list[tuple[str, str]]
) -> None:
    ops = HeaderOps(remove=tuple(removes), set=tuple(sets), add=tuple(adds))
    headers = [(name.encode(), value.encode()) for name, value in before]
    after = edited(ops, headers) if removes or sets or adds else headers
    for name in ("a", "b", "c"):
        expected = [] if name in removes else [value for key, value in before if key == name]
        overwritten = [value for key, value in sets if key == name]
        if overwritten:
            expected = overwritten[-1:]
        expected += [value for key, value in adds if key == name]
        assert [value.decode() for key, value in after if key == name.encode()] == expected
