"""Which requests a tap wants, as tables; what it is told; and that a filter is no way to guess what is hidden."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Peer, Secured
from meshproxy.model.cluster import Service, Workload
from meshproxy.model.tap import FLAGS, TapFilter, flags, statuses
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.tap import compile_tap, event, globbed

OWN = Workload(pod="book-1", namespace="default", workload="book", app="book-service", canonical_service="book-service")
OTHER = Workload(pod="rating-1", namespace="shop", workload="rating-v1", app="rating", canonical_service="rating")


def record(direction: str = "outbound") -> ExchangeRecord:
    made = ExchangeRecord(SimpleNamespace(name=direction, direction=direction), 100.0, 1_700_000_000.25)
    made.ended = 100.25
    made.method, made.path, made.authority, made.status = b"GET", b"/rate/1?x=1&token=abc", b"Rating:8080", 503
    made.flags = (Reason.CONNECT_FAILURE, Reason.RETRY_EXHAUSTED)
    made.detail = Reason.CONNECT_FAILURE.detail
    made.attempts = 3
    made.cluster_name = "outbound|8080||rating.shop.svc.cluster.local"
    made.service = Service(host="rating.shop.svc.cluster.local", name="rating", namespace="shop")
    made.endpoint = SimpleNamespace(address="127.1.0.2", port=8080, workload=OTHER)
    made.request_headers = [(b"authorization", b"Bearer abc"), (b"end-user", b"jason"), (b"x-request-id", b"id-1")]
    made.downstream_remote = ("127.1.0.1", 40000)
    if direction == "inbound":
        made.peer = OTHER
    return made


def wants(given: dict[str, Any], told: ExchangeRecord) -> bool:
    compiled = compile_tap(TapFilter(**given), lambda: OWN)
    return compiled is None or compiled(told)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),
        ({"methods": ("GET",)}, True),
        ({"methods": ("get", "post")}, True),
        ({"methods": ("POST",)}, False),
        ({"path": "/rate"}, True),
        ({"path": "/rate/1"}, True),
        ({"path": "/rate/1?x=1"}, True),
        ({"path": "/book"}, False),
        ({"path": "/*/1"}, True),
        ({"path": "*1"}, True),
        ({"path": "/*/2"}, False),
        ({"statuses": statuses("5xx")}, True),
        ({"statuses": statuses("503")}, True),
        ({"statuses": statuses("400-499,503")}, True),
        ({"statuses": statuses("400-499")}, False),
        ({"authority": "rating"}, True),
        ({"authority": "rating:8080"}, True),
        ({"authority": "rat*"}, True),
        ({"authority": "book"}, False),
        ({"directions": ("outbound",)}, True),
        ({"directions": ("inbound", "gateway")}, False),
        ({"min_ms": 250.0}, True),
        ({"min_ms": 251.0}, False),
        ({"flags": ("UF",)}, True),
        ({"flags": ("UH", "URX")}, True),
        ({"flags": ("UH",)}, False),
        ({"headers": (("end-user", None),)}, True),
        ({"headers": (("End-User", "jason"),)}, True),
        ({"headers": (("end-user", "ann"),)}, False),
        ({"headers": (("authorization", None),)}, True),
        ({"headers": (("nope", None),)}, False),
        ({"source": "book"}, True),
        ({"source": "book-service.default"}, True),
        ({"source": "default/book"}, True),
        ({"source": "book.shop"}, False),
        ({"source": "127.1.0.1"}, True),
        ({"source": "127.1.0.9"}, False),
        ({"destination": "rating"}, True),
        ({"destination": "rating-v1.shop"}, True),
        ({"destination": "rating.shop.svc.cluster.local"}, True),
        ({"destination": "rating.default"}, False),
        ({"destination": "127.1.0.2"}, True),
        ({"destination": "book"}, False),
        ({"methods": ("GET",), "statuses": statuses("404")}, False),
    ],
)
def test_outbound(given: dict[str, Any], expected: bool) -> None:
    assert wants(given, record()) is expected


def test_inbound_turns_the_sides_round() -> None:
    told = record("inbound")
    assert wants({"source": "rating.shop"}, told) and wants({"destination": "book"}, told)
    assert not wants({"source": "book"}, told)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"methods": ("G T",)}, "methods"),
        ({"path": "rate"}, "path"),
        ({"flags": ("XX",)}, "flags"),
        ({"min_ms": -1.0}, "min_ms"),
        ({"headers": (("a b", None),)}, "headers"),
        ({"headers": (("Authorization", "x"),)}, "headers"),
        ({"headers": (("x-api-key", "x"),)}, "headers"),
        ({"source": "a b"}, "source"),
        ({"destination": "/"}, "destination"),
    ],
)
def test_what_cannot_be_judged_names_its_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as no:
        compile_tap(TapFilter(**given), lambda: OWN)
    assert no.value.path == field and "\n" not in str(no.value)


def test_a_filter_does_not_tell_what_is_hidden() -> None:
    """A beginning of a secret is no match: it could be guessed letter by letter."""
    assert not wants({"path": "/rate/1?x=1&token=a"}, record()) and not wants({"path": "*token=a*"}, record())
    assert wants({"path": "/rate/1?x=1&token=["}, record())


@pytest.mark.parametrize("text", ["", "9xx", "50", "5033", "503-", "-503", "600", "503-400", "abc", "5xx,", "٥٠٣"])
def test_bad_statuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        statuses(text)


def test_flags_are_the_reasons_own() -> None:
    assert {reason.flag for reason in Reason if reason.flag} <= set(FLAGS)
    assert flags("uf, UH") == ("UF", "UH")
    with pytest.raises(ValueError, match="XX: not a response flag"):
        flags("UF,XX")


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_a_pattern_is_what_a_shell_takes_it_for(pattern: str, text: str) -> None:
    from fnmatch import fnmatchcase

    assert globbed(pattern)(text) is fnmatchcase(text, pattern)


def test_an_event() -> None:
    told = record()
    told.upstream_secured = Secured(Peer(identity="spiffe://d/ns/shop/sa/r"), local="spiffe://d/ns/default/sa/b", mesh=True)
    found = event(told, lambda: OWN, False)
    assert (found.source, found.destination, found.endpoint) == ("book.default", "rating-v1.shop", "127.1.0.2:8080")
    assert (found.status, found.flags, found.detail) == (503, ("UF", "URX"), Reason.CONNECT_FAILURE.detail)
    assert (found.mtls, found.tries, found.request_id, found.duration_ms) == ("mtls", 3, "id-1", 250.0)
    assert found.path == "/rate/1?x=1&token=[redacted]"
    assert b"abc" not in msgspec.json.encode(found) and b"jason" not in msgspec.json.encode(found)
    shown = event(told, lambda: OWN, True)
    assert dict(shown.request_headers)["end-user"] == "jason" and b"abc" not in msgspec.json.encode(shown)
    assert event(record("inbound"), lambda: OWN, False).mtls == "none"


def test_a_token_of_the_callers_sidecar_does_not_show_in_the_original_path() -> None:
    told = record()
    told.hidden_params = frozenset((b"jwt_place",))
    told.path = b"/new"
    told.request_headers.append((b"x-envoy-original-path", b"/old?jwt_place=abc&y=1"))
    assert event(told, lambda: OWN, True).path == "/old?y=1"
