"""The function that is written for a line says byte for byte what its operators say one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshproxy.message.grpc import GrpcTally
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord, StreamRecord
from meshproxy.message.secured import Peer, Secured
from meshproxy.model.texts import OPERATORS
from meshproxy.policy import format as formats
from meshproxy.policy import line as lines
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.line import compile_line

_NAMES = (
    "user-agent",
    "x-request-id",
    "x-forwarded-for",
    "x-envoy-original-path",
    "x-forwarded-proto",
    "host",
    "grpc-status",
    "a",
)
_HEADERS = st.lists(st.tuples(st.sampled_from([name.encode() for name in _NAMES]), st.binary(max_size=6)), max_size=8)
_PLACES = st.none() | st.tuples(st.sampled_from(("10.0.0.1", "fe80::1")), st.integers(0, 3))
_TEXTS = st.sampled_from(("", "a", "a b", "a\r\nb", "ä%b"))


def _operators() -> st.SearchStrategy[str]:
    names = st.sampled_from(_NAMES).map(str.upper)
    request = names | st.sampled_from((":METHOD", ":PATH", ":AUTHORITY", ":SCHEME"))
    response = names | st.just(":STATUS")
    plain = sorted(set(OPERATORS) - {"REQ", "RESP", "QUERY_PARAM"})
    one = st.one_of(
        request.map("REQ({})".format),
        st.tuples(request, request).map("REQ({0[0]}?{0[1]})".format),
        response.map("RESP({})".format),
        st.tuples(response, response).map("RESP({0[0]}?{0[1]})".format),
        st.sampled_from(plain),
        st.sampled_from(("QUERY_PARAM(x)", "PATH(NQ)", "PATH(ORIG)", "START_TIME(%s.%3f)", "GRPC_STATUS(NUMBER)")),
    )
    limit = st.just("") | st.integers(0, 4).map(":{}".format)
    return st.tuples(one, limit).map("%{0[0]}{0[1]}%".format)


_FORMATS = st.lists(_operators() | st.sampled_from((" ", '"', "%%", "{}", "ä", "\n", "record", "%%b")), max_size=30).map("".join)


@st.composite
def _records(draw: st.DrawFn) -> ExchangeRecord:
    wall = draw(st.sampled_from((0.0, 1_700_000_000.25, 1_700_000_000.409, 1_700_000_001.9999)))
    made = ExchangeRecord(None, 100.0, wall)
    if draw(st.booleans()):  # of plain bytes
        made = StreamRecord(None, 100.0, wall, None, None, draw(_TEXTS))
        made.reason = draw(_TEXTS)
    made.ended = 100.0 + draw(st.sampled_from((0.0, 0.04, 12.3456)))
    made.first_upstream_byte = draw(st.sampled_from((0.0, 100.02)))
    made.method = draw(st.sampled_from((b"", b"GET")))
    made.path = draw(st.sampled_from((b"", b"/a%25b", b"/?x=1&token=S")))
    made.authority = draw(st.sampled_from((b"", b"rating:8080")))
    made.protocol = draw(st.sampled_from((10, 11, 20, 99)))
    made.status = draw(st.sampled_from((0, 200, 503)))
    made.detail = draw(_TEXTS)
    made.transport_failure, made.route_name, made.cluster_name = draw(_TEXTS), draw(_TEXTS), draw(_TEXTS)
    made.flags = draw(st.sampled_from(((), (Reason.CONNECT_FAILURE,), (Reason.CONNECT_FAILURE, Reason.RETRY_EXHAUSTED))))
    made.attempts = draw(st.integers(0, 2))
    made.request_size = made.body_received = draw(st.integers(0, 9))
    made.response_size, made.body_sent = draw(st.integers(10, 12)), draw(st.integers(0, 9))
    made.request_headers, made.response_headers = draw(_HEADERS), draw(_HEADERS)
    endpoint = draw(_PLACES)
    made.endpoint = None if endpoint is None else SimpleNamespace(address=endpoint[0], port=endpoint[1])
    made.upstream_local, made.downstream_local, made.downstream_remote = draw(_PLACES), draw(_PLACES), draw(_PLACES)
    made.hidden_params = draw(st.sampled_from((frozenset(), frozenset((b"token",)))))
    if draw(st.booleans()):
        made.grpc = GrpcTally()
    if draw(st.booleans()):
        peer = draw(st.sampled_from((None, Peer(identity="spiffe://d/ns/n/sa/a", serial="ab", digest="cd", subject="CN=me"))))
        made.secured = Secured(peer, draw(_TEXTS), "istio", "TLSv1.3", "AES", True, "spiffe://d/ns/n/sa/b")
    return made


@given(_FORMATS, st.lists(_records(), min_size=1, max_size=4))
@example(formats.ISTIO_DEFAULT, [ExchangeRecord(None, 1.0, 0.0)])
def test_a_line_is_what_its_operators_say(text: str, records: list[ExchangeRecord]) -> None:
    plain, quick = formats.compile(text, hostname="pod%1"), compile_line(text, hostname="pod%1")
    for record in (*records, *records):  # the second time much of it is remembered
        assert quick(record) == plain(record)


def test_istios_line_is_no_more_than_a_few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """How it ended, where it went and where it came from are remembered; they are made once."""
    made: list[Any] = []

    def counted(parts: Any, empty: bytes, hostname: str) -> formats.Formatter:
        make = formats.fill_in(parts, empty, hostname)
        return lambda record: made.append(parts) or make(record)  # type: ignore[func-returns-value]

    monkeypatch.setattr(lines, "fill_in", counted)
    line = compile_line(formats.ISTIO_DEFAULT)
    made.clear()
    record = ExchangeRecord(None, 1.0, 0.0)
    for _ in range(3):
        line(record)
    assert len(made) == 4
    record.status = 404
    line(record)
    assert len(made) == 5


def test_what_is_remembered_is_bounded() -> None:
    line = compile_line("%DOWNSTREAM_REMOTE_ADDRESS% %RESPONSE_CODE%")
    record = ExchangeRecord(None, 1.0, 0.0)
    for port in range(3 * lines._REMEMBERED):
        record.downstream_remote = ("10.0.0.1", port)
        assert line(record) == b"10.0.0.1:%d 0" % port
    (known,) = [value.__self__ for name, value in line.__globals__.items() if name.startswith("known_")]  # type: ignore[attr-defined]
    assert 0 < len(known) <= lines._REMEMBERED


@pytest.mark.parametrize("text", ['"""', "\\", "'); raise SystemExit #", "{record.status}", "%%s", "\x00", "\u2028"])
def test_nothing_of_a_format_is_run(text: str) -> None:
    assert compile_line(text + "%RESPONSE_CODE%")(ExchangeRecord(None, 1.0, 0.0)) == text.replace("%%", "%").encode() + b"0"


def test_a_bad_format_is_told_with_its_path() -> None:
    with pytest.raises(Invalid, match=r"^here: .*did you mean %DURATION%"):
        compile_line("%DURATOIN%", "here")
