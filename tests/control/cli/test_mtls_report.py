"""meshctl x mtls report: what sidecars say, added up per workload and port, and the verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from control.cli.mtls import summary, who


def caller(how: str, source: str = "10.0.0.9", workload: str = "", requests: int = 1, seen: float = 5.0) -> dict[str, Any]:
    space = "default" if workload else ""
    return {"how": how, "source": source, "workload": workload, "namespace": space, "requests": requests, "seen": seen}


def pod(name: str, *callers: dict[str, Any], mtls: str = "PERMISSIVE", source: str = "", since: float = 1.0) -> dict[str, Any]:
    listener = {"name": "inbound|8080", "port": 8080, "mtls": mtls, "source": source, "callers": list(callers)}
    return {"namespace": "default", "pod": name, "workload": "rating", "since": since, "listeners": [listener]}


PEER = "spiffe://cluster.local/ns/default/sa/book"


@pytest.mark.parametrize(
    ("mtls", "callers", "verdict", "ready"),
    [
        ("PERMISSIVE", [caller("mutual TLS", PEER)], "ready for STRICT", True),
        ("PERMISSIVE", [], "nobody has called yet", False),
        ("PERMISSIVE", [caller("plaintext")], "not ready: 10.0.0.9", False),
        (
            "PERMISSIVE",
            [caller("plaintext", f"10.0.0.{n}", f"app-{n}") for n in range(4)] + [caller("mutual TLS", PEER)],
            "not ready: app-0.default, app-1.default and 2 more",
            False,
        ),
        ("STRICT", [caller("mutual TLS", PEER)], "STRICT already", True),
        ("STRICT", [caller("refused"), caller("plaintext")], "STRICT; 1 plaintext caller turned away", True),
        ("DISABLE", [], "mutual TLS is switched off: nobody is counted", False),
    ],
)
def test_verdicts(mtls: str, callers: list[dict[str, Any]], verdict: str, ready: bool) -> None:
    (workload,) = summary([pod("rating-1", *callers, mtls=mtls)])["workloads"]
    assert (workload["ports"][0]["verdict"], workload["ready"]) == (verdict, ready)


def test_the_pods_of_a_workload_are_added_up_and_the_laxest_mode_counts() -> None:
    pods = [
        pod(
            "rating-1", caller("plaintext", requests=2, seen=7.0), mtls="STRICT", source="PeerAuthentication default/a", since=3.0
        ),
        pod("rating-2", caller("plaintext", requests=3, seen=6.0), caller("mutual TLS", PEER), since=9.0),
    ]
    (workload,) = summary(pods)["workloads"]
    (port,) = workload["ports"]
    assert (workload["since"], port["mtls"], port["source"]) == (9.0, "PERMISSIVE", "")
    assert [(one["how"], one["requests"], one["seen"]) for one in port["callers"]] == [
        ("mutual TLS", 1, 5.0),
        ("plaintext", 5, 7.0),
    ]


def test_callers_are_named_as_far_as_they_are_known() -> None:
    assert who(caller("plaintext", workload="book")) == "book.default (10.0.0.9)"
    assert who(caller("plaintext")) == "10.0.0.9"
    assert who(caller("plaintext", "")) == "others, no longer told apart"
