"""What is remembered of failed requests: which, how many, and nothing that a log would hide."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from meshproxy.message.decision import Decision
from meshproxy.message.grpc import GrpcTally
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.base import encode
from meshproxy.model.cluster import Workload
from meshproxy.telemetry.failures import KEPT, Failure, Failures, chosen
from meshproxy.telemetry.observe import Observer
from tests.telemetry.test_observe import BOOK, Routed, record

LISTENER = SimpleNamespace(name="inbound|8080", direction="inbound")


def rows(*records: ExchangeRecord) -> list[Failure]:
    observer = Observer(BOOK)
    for one in records:
        observer.finished(one, one.started + 0.25)
    return observer.failures.rows()


def failed(status: int, *reasons: Reason, **fields: Any) -> ExchangeRecord:
    made = record(**{"status": status, "method": b"GET", "path": b"/rate/1", "authority": b"rating:8080", **fields})
    for reason in reasons:
        made.flag(reason)
        made.detail = reason.detail
    return made


def test_only_failures_are_kept() -> None:
    assert rows(record(), record(status=101), record(status=302), failed(200, Reason.FAULT_DELAY)) == []
    kept = [failed(503), failed(404), failed(0, Reason.DOWNSTREAM_GONE), failed(200, Reason.UPSTREAM_TERMINATION)]
    assert sorted(one.status for one in rows(*kept)) == [0, 200, 404, 503]


def test_a_grpc_call_that_fails_has_status_200() -> None:
    def call(status: int) -> ExchangeRecord:
        made = failed(200)
        made.grpc = GrpcTally()
        made.grpc.ended([(b"grpc-status", b"%d" % status)])
        return made

    assert [one.grpc for one in rows(call(0), call(14))] == ["14"]


def test_what_is_kept_of_one() -> None:
    made = failed(
        503,
        Reason.CONNECT_FAILURE,
        Reason.RETRY_EXHAUSTED,
        attempts=3,
        transport_failure="delayed connect error: Connection refused",
        downstream_remote=("127.0.0.9", 4711),
        route_name="primary",
        chosen=Routed("virtualservice/default/rating http[0]"),
        peer=Workload(workload="web", namespace="shop", pod="web-1"),
    )
    made.request_headers = [(b"authorization", b"Bearer secret"), (b"x-request-id", b"abc")]
    (one,) = rows(made)
    assert (one.request_id, one.method, one.authority, one.path) == ("abc", "GET", "rating:8080", "/rate/1")
    assert (one.flags, one.reasons) == (("UF", "URX"), ("CONNECT_FAILURE", "RETRY_EXHAUSTED"))
    assert (one.endpoint, one.target, one.attempts, one.ms) == ("10.0.0.2:8080", {"workload": "rating"}, 3, 250.0)
    assert (one.route, one.source, one.cluster) == ("primary", "virtualservice/default/rating http[0]", "outbound|8080||rating")
    assert one.caller == {"namespace": "shop", "workload": "web", "pod": "web-1"} and one.remote == "127.0.0.9"
    assert b"secret" not in encode(one)


def test_neither_heads_nor_configurations_that_have_gone_are_kept() -> None:
    observer = Observer(BOOK)
    route, headers = Routed("virtualservice/default/rating http[0]"), [(b"x-request-id", b"abc"), (b"x-long", b"x" * 60_000)]
    made = failed(503, chosen=route, path=b"/" + b"p" * 60_000)
    made.request_headers = headers
    before = (sys.getrefcount(headers), sys.getrefcount(made))
    observer.finished(made, 2.0)
    assert (sys.getrefcount(headers), sys.getrefcount(made)) == before
    observer._unbind()  # the look-up table of series may know it until the configuration changes
    assert len(gc.get_referrers(route)) <= 1  # the record above
    (one,) = observer.failures.rows()
    assert one.source == "virtualservice/default/rating http[0]" and len(one.path) == 512


def test_the_policy_that_decided_is_kept() -> None:
    decision = Decision(False, "DENY", "default/no-delete", 0, "rule 0 matches")
    (one,) = rows(failed(403, Reason.RBAC_DENIED, listener=LISTENER, decisions=(decision,)))
    assert [(d.action, d.policy, d.rule, d.allowed) for d in one.decisions] == [("DENY", "default/no-delete", 0, False)]


def test_tokens_in_the_query_are_hidden_and_lines_stay_lines() -> None:
    made = failed(401, Reason.TOKEN_REFUSED, hidden_params=frozenset((b"access_token",)))
    made.path = b"/a?access_token=eyJ&x=1\x1b[2J"
    (one,) = rows(made)
    assert one.path == "/a?x=1\\x1b[2J"
    made.hidden_params = frozenset((b"x",))
    assert [found.path for found in rows(made)] == ["/a"]
    (one,) = rows(failed(503, path=b"/a?access_token=eyJ&x=1", listener=LISTENER))
    assert one.path == "/a?x=1"


def test_callers_that_are_refused_cannot_push_out_what_failed() -> None:
    told = rows(failed(503), *(failed(404) for _ in range(2 * KEPT)), *(failed(400, Reason.BAD_REQUEST) for _ in range(KEPT)))
    assert len(told) == KEPT + 1 and [one.status for one in told].count(503) == 1


def test_a_request_without_a_head_is_kept_too() -> None:
    made = ExchangeRecord(LISTENER, 1.0, 1.7e9)
    made.status, made.detail = 400, "http1.codec_error"
    made.flag(Reason.BAD_REQUEST)
    (one,) = rows(made)
    assert (one.method, one.request_id, one.flags) == ("", "", ("DPE",))


def test_how_one_is_asked_for() -> None:
    kept = Failures()
    for number, status in enumerate((503, 404, 503, 0)):
        made = failed(status, *((Reason.DOWNSTREAM_GONE,) if not status else ()), wall=1000.0 + number)
        made.request_headers = [(b"x-request-id", b"%d" % number)]
        kept.see(made, "", made.started)

    def ids(**args: Any) -> list[str]:
        return [one.request_id for one in chosen(kept.rows(), args, 1010.0)]

    assert ids() == ids(status="failed") == ["3", "2", "1", "0"]
    assert ids(status="503") == ids(status="5xx") == ["2", "0"]
    assert ids(status="4xx") == ["1"] and ids(id="0") == ["0"] and ids(id="9") == []
    assert ids(since="8.5") == ["3", "2"] and ids(limit=1) == ["3"]
    assert ids(direction="inbound") == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"status": "5x"}, "status: must be a status such as 503, a class such as 5xx, or failed, not '5x'"),
        ({"since": "x"}, "since: must be a number, not 'x'"),
        ({"who": "me"}, "who: unknown; there are id, status, direction, since and limit"),
    ],
)
def test_what_cannot_be_asked(args: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        chosen((), args, 0.0)
