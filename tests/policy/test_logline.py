"""Istio's default line, written by the access log and read back: the same as its JSON form."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Secured
from meshproxy.policy.logline import FIELDS, parse
from meshproxy.telemetry.accesslog import JSON_FIELDS, formatter

TEXT, JSON = formatter(), formatter("JSON")
SAFE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"'), min_size=1, max_size=30).filter(
    lambda text: text != "-"
)
AGENT = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60).filter(lambda text: text != "-")
ADDRESS = st.none() | st.tuples(st.sampled_from(["127.1.0.1", "::1"]), st.integers(0, 65535))


@st.composite
def records(draw: st.DrawFn) -> ExchangeRecord:
    direction = draw(st.sampled_from(["inbound", "outbound"]))
    made = ExchangeRecord(SimpleNamespace(name=direction, direction=direction), 100.0, draw(st.floats(0, 4e9)))
    made.ended = 100.0 + draw(st.floats(0, 1e4))
    made.method = draw(st.sampled_from([b"GET", b"POST", b"M-SEARCH"]))
    made.path = b"/" + draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)).encode()
    made.protocol = draw(st.sampled_from([10, 11, 20]))
    made.status = draw(st.sampled_from([0, 200, 404, 503]))
    for reason in draw(st.sets(st.sampled_from([one for one in Reason if one.flag]), max_size=3)):
        made.flag(reason)
    made.detail = draw(st.sampled_from([one.detail for one in Reason if one.detail]))
    made.transport_failure = draw(st.sampled_from(["", "delayed connect error: Connection refused", "TLS_error: |x: y:z"]))
    made.body_received, made.body_sent = draw(st.integers(0, 10**12)), draw(st.integers(0, 10**12))
    made.cluster_name = draw(st.sampled_from(["", "outbound|80||a.default.svc.cluster.local", "PassthroughCluster"]))
    made.route_name = draw(st.sampled_from(["", "default", "a route of two words"]))
    place = draw(ADDRESS)
    made.endpoint = None if place is None else SimpleNamespace(address=place[0], port=place[1], workload=None)
    made.upstream_local, made.downstream_local, made.downstream_remote = draw(ADDRESS), draw(ADDRESS), draw(ADDRESS)
    made.secured = draw(st.sampled_from([None, Secured(None, sni="a.example"), Secured(None)]))
    made.authority = draw(SAFE).encode()
    headers = {b"user-agent": AGENT, b"x-request-id": SAFE, b"x-forwarded-for": st.sampled_from(["1.2.3.4", "1.2.3.4, 5.6.7.8"])}
    made.request_headers = [(name, draw(values).encode()) for name, values in headers.items() if draw(st.booleans())]
    made.response_headers = [(b"x-envoy-upstream-service-time", b"%d" % draw(st.integers(0, 9999)))] * draw(st.integers(0, 1))
    return made


@given(records())
def test_text_says_what_json_says(record: ExchangeRecord) -> None:
    agent = dict(record.request_headers).get(b"user-agent", b"")
    if b'" ' in agent:
        record.request_headers = [pair for pair in record.request_headers if pair[0] != b"user-agent"]
    assert parse(TEXT(record).decode()) == json.loads(JSON(record))


@given(records())
def test_a_callers_quotes_stay_in_his_user_agent(record: ExchangeRecord) -> None:
    """Whatever he calls himself: what the proxy wrote of the request is read from elsewhere in the line."""
    record.request_headers = [(b"user-agent", b'x" "forged-id" "forged-host" "6.6.6.6:1'), (b"x-request-id", b"true-id")]
    found, true = parse(TEXT(record).decode()), json.loads(JSON(record))
    assert found == true


def test_the_names_are_those_of_json() -> None:
    assert list(FIELDS) == list(JSON_FIELDS)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Request 1",
        "[2026-01-01T00:00:00.000Z] hello",
        '[2026-01-01T00:00:00.000Z] "GET / HTTP/1.1" 200',
        '{"response_code": 200}',
        '[x] "GET / HTTP/1.1" 200 - via_upstream - "-" 0 1 2 3 "a"',
    ],
)
def test_other_lines_are_none(line: str) -> None:
    assert parse(line) is None


@given(st.text(max_size=200))
def test_nothing_breaks_it(line: str) -> None:
    parse(line)
    parse('[2026-01-01T00:00:00.000Z] "GET / HTTP/1.1" 200 - via_upstream - "' + line)
