"""``meshctl why``: the way of a request, where it began to fail, and its story for every reason there is."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest

from control.cli import why_reasons
from control.cli.__main__ import main
from control.cli.why_hops import Hop, origin, reason_of, related, tree, walk
from control.cli.why_reasons import ADVICE, TOKENS, Advice
from control.cli.why_story import State, Story, fate, story
from control.cli.why_text import lines
from meshproxy.message.reason import Reason
from meshproxy.message.token import TokenFault

ID = "82f3b6db-a11c-9c58-a6b6-2bad83f059e2"
GATE, BOOK, RATING = ("istio-system", "gate"), ("default", "book"), ("default", "rating-v2")
CLUSTER = "outbound|8080|v2|rating.default.svc.cluster.local"
VS = "VirtualService default/rating http[0]"
DR = "DestinationRule default/rating subset v2"


def who(pod: tuple[str, str]) -> dict[str, str]:
    return {"namespace": pod[0], "workload": pod[1], "pod": pod[1], "version": "v1"}


def failure(pod: tuple[str, str], direction: str = "outbound", *reasons: Reason, **fields: Any) -> dict[str, Any]:
    """One failure, as the API tells it."""
    main_ = next((one for one in reasons if one.name not in ("RETRY_EXHAUSTED", "FAULT_DELAY")), None)
    made: dict[str, Any] = {
        "namespace": pod[0],
        "pod": pod[1],
        "at": 1000.0,
        "ms": 10.0,
        "listener": direction,
        "direction": direction,
        "method": "GET",
        "authority": "rating:8080",
        "path": "/rate/1",
        "status": main_.status if main_ is not None else 503,
        "flags": [one.flag for one in reasons if one.flag],
        "reasons": [one.name for one in reasons],
        "detail": main_.detail if main_ is not None else "via_upstream",
        "request_id": ID,
        "trace_id": "",
        "grpc": "",
        "route": "",
        "source": VS if direction != "inbound" else "",
        "cluster": CLUSTER if direction != "inbound" else "inbound|8080||",
        "service": "rating.default.svc.cluster.local",
        "endpoint": "10.0.0.3:8080",
        "target": who(RATING),
        "attempts": 1,
        "first_byte_ms": 9.0,
        "transport": "",
        "caller": {},
        "remote": "10.0.0.9",
        "mtls": None,
        "upstream_mtls": True,
        "decisions": [],
    }
    return {**made, **fields}


def chain() -> list[dict[str, Any]]:
    """gate -> book -> rating-v2, whose app answers 503. Clocks differ by a millisecond."""
    return [
        failure(GATE, "gateway", at=1000.0, ms=10.0, target=who(BOOK), authority="shop"),
        failure(BOOK, "inbound", at=999.999, ms=9.0, caller=who(GATE), target=who(BOOK), authority="shop"),
        failure(BOOK, "outbound", at=1000.002, ms=6.0),
        failure(RATING, "inbound", at=1000.001, ms=5.0, caller=who(BOOK), endpoint="10.0.0.3:9080"),
    ]


def told(at: Hop, **state: Any) -> Story:
    return story(at, None, State(**state))


def whole(found: Story) -> str:
    return "\n".join((found.where, *found.why, *found.config, *found.now, *found.do))


# -- the way


def test_a_failure_that_is_passed_on_began_where_it_is_deepest() -> None:
    for hops in (chain(), chain()[::-1]):
        (root,) = tree(hops)
        assert [(hop.pod, hop.about["direction"], depth) for hop, depth in walk([root])] == [
            (GATE, "gateway", 0),
            (BOOK, "inbound", 1),
            (BOOK, "outbound", 2),
            (RATING, "inbound", 3),
        ]
        begun = origin(root)
        assert begun.pod == RATING and fate(begun, True) == "its app answered so itself"
        assert fate(root, False) == "passed on what book answered"


def test_clocks_of_machines_may_disagree() -> None:
    hops = chain()
    for late, one in ((0.0, hops[0]), (2.5, hops[1]), (2.5, hops[2]), (-1.0, hops[3])):
        one["at"] += late
    (root,) = tree(hops)
    assert [hop.pod for hop, _ in walk([root])] == [GATE, BOOK, BOOK, RATING]


def test_a_call_that_comes_back_to_its_caller_is_no_circle() -> None:
    inner = [
        failure(RATING, "outbound", at=1000.003, ms=3.0, target=who(BOOK)),
        failure(BOOK, "inbound", at=1000.004, ms=2.0, caller=who(RATING), target=who(BOOK)),
    ]
    roots = tree([*chain(), *inner])
    walked = [hop for hop, _ in walk(roots)]
    assert len(walked) == 6 and origin(roots[0]).pod in (BOOK, RATING)


def test_a_sidecar_that_answers_by_itself_is_the_origin_whatever_is_below() -> None:
    hops = chain()
    hops[2] = failure(BOOK, "outbound", Reason.UPSTREAM_TIMEOUT, at=1000.002, ms=6.0)
    hops[3] = failure(RATING, "inbound", Reason.DOWNSTREAM_GONE, at=1000.003, ms=5.0, caller=who(BOOK))
    begun = origin(tree(hops)[0])
    assert (begun.pod, begun.about["direction"], reason_of(begun.about)) == (BOOK, "outbound", Reason.UPSTREAM_TIMEOUT)


def test_the_last_of_several_tries_is_what_was_passed_on() -> None:
    first = failure(("default", "rating-v1"), "inbound", at=1000.002, ms=1.0, caller=who(BOOK))
    hops = [*chain(), first]
    root = tree(hops)[0]
    outbound = next(hop for hop, _ in walk([root]) if hop.pod == BOOK and not hop.inbound)
    assert {hop.pod[1] for hop in outbound.children} == {"rating-v1", "rating-v2"}


def test_calls_under_another_id_are_found_by_time() -> None:
    inbound = failure(BOOK, "inbound", at=1000.0, ms=10.0, caller=who(GATE))
    fits = failure(BOOK, "outbound", at=1000.003, ms=5.0, request_id="another")
    others = [
        failure(BOOK, "outbound", at=1000.003, ms=50.0, request_id="longer"),
        failure(BOOK, "outbound", at=999.0, request_id="earlier"),
        failure(RATING, "outbound", at=1000.003, ms=1.0, request_id="elsewhere"),
        failure(BOOK, "inbound", at=1000.003, ms=1.0, request_id="inbound"),
    ]
    assert related(inbound, [fits, *others]) == [fits]
    (root,) = tree([inbound, fits], frozenset((id(fits),)))
    assert [(hop.about["request_id"], hop.guessed) for hop, _ in walk([root])] == [(ID, False), ("another", True)]


def test_a_reset_after_the_response_began_has_its_reason() -> None:
    detail = Reason.UPSTREAM_TERMINATION.detail.replace("before_response_started", "after_response_started")
    assert (
        reason_of(failure(BOOK, "outbound", Reason.UPSTREAM_TERMINATION, detail=detail, status=200))
        is Reason.UPSTREAM_TERMINATION
    )


# -- the story


def test_every_reason_has_its_advice_and_the_words_for_it() -> None:
    assert set(ADVICE) == set(Reason) and set(TOKENS) == set(TokenFault)
    known = set(told_words())
    extra = [getattr(why_reasons, name) for name in ("APP", "CONFIGURED", "TLS", "UNTRACED")]
    for advice in (*ADVICE.values(), *extra):
        assert isinstance(advice, Advice) and advice.means.endswith(".") and advice.do
        used = {name for line in advice.do for _, name, _, _ in string.Formatter().parse(line) if name}
        assert used <= known
    assert all(TOKENS.values())


def told_words() -> list[str]:
    from control.cli.why_story import _Words

    return list(_Words(Hop(failure(BOOK)), None, State()))


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("direction", ["outbound", "inbound", "gateway"])
def test_every_reason_tells_a_story(reason: Reason, direction: str) -> None:
    found = told(Hop(failure(BOOK, direction, reason, first_byte_ms=None)))
    assert found.where and found.why and found.do
    assert not re.search(r"\{(?!\w*connection|\w*remote|\w*overflow|\w*protocol|\w*response)", "\n".join(found.do))
    assert any(reason.detail in line for line in found.why) or reason in (Reason.FAULT_DELAY, Reason.RETRY_EXHAUSTED)
    if reason.flag:
        assert any(reason.flag in line for line in found.why)


def test_a_codec_refusal_has_no_request_to_explain() -> None:
    at = Hop(
        failure(
            BOOK,
            "inbound",
            Reason.BAD_REQUEST,
            method="",
            authority="",
            path="",
            request_id="",
            cluster="",
            endpoint="",
            target={},
        )
    )
    found = told(at)
    assert "before its app heard of it" in found.where
    assert not any("explain" in line for line in found.do) and any("http1.codec_error" in line for line in found.do)


EXPLAINED: dict[str, Any] = {
    "decision": "forward",
    "route": {"name": "", "source": VS, "kind": "forward"},
    "policy": {"timeoutSeconds": 0.5, "retries": {"attempts": 2, "on": ["5xx"], "perTryTimeoutSeconds": None}},
    "destinations": [{"cluster": CLUSTER, "known": True, "source": DR, "tls": {"mode": "ISTIO_MUTUAL", "source": DR}}],
}


def cluster(**fields: Any) -> dict[str, Any]:
    row = {"address": "10.0.0.3:8080", "pod": "rating-v2", "workload": "rating-v2", "health": "healthy", "ejected_for": 0.0,
           "cx_connect_fail": 0, "cx_total": 3}  # fmt: skip
    made = {
        "name": CLUSTER, "source": DR, "endpoints": [row], "outlier": None,
        "thresholds": {"max_connections": 5, "max_pending_requests": 1, "max_requests": None, "max_retries": None},
        "active": {"connections": 1, "pending": 1, "requests": 1, "retries": 0},
        "overflow": {"connections": 0, "pending": 7, "requests": 0, "retries": 0},
    }  # fmt: skip
    made.update(fields)
    return made


EJECTED = [{**cluster()["endpoints"][0], "health": "failed_outlier_check", "ejected_for": 170.2}]

STORIES: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    (
        "an app's own answer",
        failure(RATING, "inbound", endpoint="10.0.0.3:9080"),
        {"caller": {**EXPLAINED, "policy": {}}},
        [
            "the app of default/rating-v2 (v1), at 10.0.0.3:9080",
            "The app answered so itself",
            "retries of the caller: none (VirtualService default/rating http[0])",
            "kubectl logs -n default rating-v2",
            "curl -i http://10.0.0.3:9080/rate/1",
            'A retry could hide it: `retries` with `retryOn: "503"`',
        ],
    ),
    (
        "an answer that another try followed",
        failure(RATING, "inbound", caller=who(BOOK)),
        {},
        ["book's sidecar remembers no failure of it, so another try most likely succeeded"],
    ),
    (
        "an answer of somebody without a sidecar",
        failure(
            BOOK,
            target={},
            service="",
            cluster="PassthroughCluster",
            authority="api.example",
            upstream_mtls=False,
            route="allow_any",
            source="",
        ),
        {},
        ["api.example, at 10.0.0.3:8080", "it has no sidecar that could tell more", "route: allow_any (no service of the mesh"],
    ),
    (
        "everybody is ejected",
        failure(BOOK, "outbound", Reason.NO_HEALTHY_UPSTREAM, endpoint="", target={}),
        {
            "told": {**EXPLAINED, "decision": "no healthy upstream", "status": 503},
            "cluster": cluster(endpoints=EJECTED),
            "before": [failure(BOOK, at=990.0)],
        },
        [
            "the sidecar of default/book, on the way to rating.default.svc.cluster.local subset v2",
            "rating-v2 had failed before, at",
            f"destination: {CLUSTER} ({DR})",
            "It still holds: the same request is answered 503 (no healthy upstream).",
            "0 of 1 endpoints take requests.",
            "rating-v2 (10.0.0.3:8080) is ejected by outlier detection for 170 s more.",
            "kubectl get destinationrule rating -n default -o yaml",
        ],
    ),
    (
        "nobody is ejected any more",
        failure(BOOK, "outbound", Reason.NO_HEALTHY_UPSTREAM),
        {"told": EXPLAINED, "cluster": cluster()},
        ["It holds no longer: the same request would be forwarded now.", "All 1 endpoints take requests now."],
    ),
    (
        "a limit",
        failure(BOOK, "outbound", Reason.OVERFLOW),
        {"told": EXPLAINED, "cluster": cluster()},
        ["http1MaxPendingRequests is 1: 1 in use now, 7 refused since the sidecar started."],
    ),
    (
        "nobody listens",
        failure(
            BOOK,
            "outbound",
            Reason.CONNECT_FAILURE,
            Reason.RETRY_EXHAUSTED,
            attempts=3,
            transport="delayed connect error: refused",
        ),
        {"told": EXPLAINED, "cluster": cluster(endpoints=[{**EJECTED[0], "health": "healthy", "cx_connect_fail": 4}])},
        [
            "The last try failed with: delayed connect error: refused (10.0.0.3:8080, rating-v2)",
            "3 tries were made; the last went to rating-v2.",
            "All retries that the rule allows were used up",
            "rating-v2: 4 connects failed so far, 3 did not.",
            f"{VS} allows 2 retries, on 5xx.",
        ],
    ),
    (
        "TLS",
        failure(BOOK, "outbound", Reason.CONNECT_FAILURE, transport="TLS_error: the peer is not who it should be"),
        {
            "told": {
                **EXPLAINED,
                "destinations": [
                    {
                        **EXPLAINED["destinations"][0],
                        "endpoints": [
                            {
                                "address": "10.0.0.3:8080",
                                "pod": "rating-v2",
                                "refused": "the peer is not who it should be: d/ns/default/sa/x",
                            }
                        ],
                    }
                ],
            },
            "cluster": cluster(),
        },
        [
            "TLS with the endpoint could not be agreed on",
            f"TLS mode ISTIO_MUTUAL (by {DR}).",
            "rating-v2: its certificate would be refused: the peer is not who it should be: d/ns/default/sa/x",
            "meshctl proxy-config secret default/rating-v2",
        ],
    ),
    (
        "no route",
        failure(BOOK, "outbound", Reason.NO_ROUTE, cluster="", source="", endpoint="", target={}),
        {
            "told": {
                "decision": "no route",
                "status": 404,
                "steps": [{"what": "route", "name": "", "source": VS, "taken": False, "reason": 'path is "/x": it is "/rate/1"'}],
            }
        },
        [
            "It still holds",
            f'nearest rule {VS}: path is "/x": it is "/rate/1"',
            "meshctl explain GET http://rating:8080/rate/1 --from",
        ],
    ),
    (
        "no cluster",
        failure(BOOK, "outbound", Reason.NO_CLUSTER),
        {
            "told": {
                "decision": "no cluster",
                "status": 503,
                "destinations": [{"cluster": CLUSTER, "known": False, "reason": "no such"}],
            }
        },
        ["It still holds", f"{CLUSTER}: no such", f"route: {VS}", "meshctl analyze"],
    ),
    (
        "the timeout",
        failure(BOOK, "outbound", Reason.UPSTREAM_TIMEOUT, ms=500.4, first_byte_ms=None, trace_id="ab" * 16),
        {"told": EXPLAINED},
        [
            f"{VS} allows 0.5 s for all tries together.",
            "That was after 500.4 ms; nothing had been heard",
            f"meshctl trace {'ab' * 16}",
        ],
    ),
    (
        "a try's timeout",
        failure(BOOK, "outbound", Reason.PER_TRY_TIMEOUT),
        {"told": EXPLAINED},
        [f"{VS} has no perTryTimeout any more."],
    ),
    (
        "the endpoint closed",
        failure(BOOK, "outbound", Reason.UPSTREAM_TERMINATION),
        {"cluster": cluster()},
        ["closed the connection before it had answered", "All 1 endpoints take requests now."],
    ),
    (
        "the client went",
        failure(GATE, "gateway", Reason.DOWNSTREAM_GONE, ms=1500.0),
        {},
        ["status none, response flag DC", "1.50 s were not enough for it."],
    ),
    (
        "an AuthorizationPolicy",
        failure(
            RATING,
            "inbound",
            Reason.RBAC_DENIED,
            endpoint="",
            caller={**who(BOOK), "principal": "spiffe://d/ns/default/sa/book"},
            decisions=[
                {
                    "action": "DENY",
                    "policy": "default/no",
                    "rule": 1,
                    "allowed": False,
                    "dry_run": False,
                    "reason": "rule 1 of DENY policy default/no matched",
                }
            ],
        ),
        {"told": {"decision": "denied", "status": 403, "because": "rule 1 of DENY policy default/no matched"}},
        [
            "Decided by: rule 1 of DENY policy default/no matched.",
            "policy: DENY AuthorizationPolicy default/no rule 1",
            "The caller was d/ns/default/sa/book over mutual TLS.",
            "nobody keeps, is answered 403 (denied: rule 1",
            "kubectl get authorizationpolicy -n default no -o yaml",
            "--at default/rating-v2 --as d/ns/default/sa/book",
        ],
    ),
    (
        "no ALLOW policy",
        failure(
            RATING,
            "inbound",
            Reason.RBAC_DENIED,
            endpoint="",
            decisions=[
                {"action": "ALLOW", "policy": "", "rule": -1, "allowed": False, "dry_run": False, "reason": "none matched"}
            ],
        ),
        {
            "told": {
                "decision": "denied",
                "status": 403,
                "authorization": [
                    {
                        "action": "ALLOW",
                        "policy": "default/yes",
                        "rule": 0,
                        "matched": False,
                        "dry_run": False,
                        "reason": "method is PUT",
                    }
                ],
            }
        },
        [
            "The caller was 10.0.0.9, in plaintext.",
            "policy: ALLOW AuthorizationPolicy default/yes (none of its rules matches)",
            "ALLOW default/yes rule 0 does not match: method is PUT",
            "kubectl get authorizationpolicy -n default yes -o yaml",
        ],
    ),
    (
        "a token",
        failure(RATING, "inbound", Reason.TOKEN_REFUSED, detail=TokenFault.EXPIRED.detail),
        {"told": EXPLAINED},
        ["Jwt is expired.", "Let the client ask its issuer for a new token.", "depends on headers that nobody keeps"],
    ),
    (
        "an authoriser",
        failure(RATING, "inbound", Reason.EXT_AUTHZ_ERROR),
        {},
        ["response flag UAEX", "it fails closed"],
    ),
    (
        "a fault",
        failure(BOOK, "outbound", Reason.FAULT_ABORT, Reason.FAULT_DELAY, cluster="", status=418),
        {"told": {**EXPLAINED, "decision": "fault", "policy": {"abort": {"percent": 50.0, "status": 418}}}},
        [
            "on a request for rating.default",
            f"{VS} aborts 50 % with 418.",
            f"{VS} injects no delay any more.",
            "delayed on purpose first",
        ],
    ),
    (
        "a rule that answers",
        failure(BOOK, "outbound", detail="direct_response", cluster="", status=410),
        {},
        ["A rule answers such requests itself", "kubectl get virtualservice rating -n default -o yaml"],
    ),
    (
        "retries that no budget allowed",
        failure(BOOK, "outbound", Reason.OVERFLOW, detail="via_upstream"),
        {},
        ["maxRetries or the retry budget allowed none"],
    ),
    (
        "a sidecar that is behind",
        failure(BOOK, "outbound", Reason.NO_CLUSTER),
        {"proxy": {"status": "STALE"}, "problem": "no answer"},
        ["default/book is STALE: it does not run the newest configuration.", "What holds now is not known: no answer."],
    ),
]


@pytest.mark.parametrize(("about", "state", "said"), [row[1:] for row in STORIES], ids=[row[0] for row in STORIES])
def test_stories(about: dict[str, Any], state: dict[str, Any], said: list[str]) -> None:
    text = whole(told(Hop(about), **state))
    assert [one for one in said if one not in text] == [], text


def test_what_callers_send_is_quoted_and_is_no_word_of_ours() -> None:
    found = told(Hop(failure(BOOK, "outbound", Reason.NO_ROUTE, path="/{pod}/$(reboot)'")))
    assert "meshctl explain GET 'http://rating:8080/{pod}/$(reboot)'\"'\"'' --from default/book" in found.do


def test_the_text() -> None:
    (root,) = tree(chain())
    begun = origin(root)
    found = {
        "request": root.about,
        "hops": [
            {**hop.about, "depth": depth, "begunHere": hop is begun, "guessed": False, "fate": fate(hop, hop is begun)}
            for hop, depth in walk([root])
        ],
        **told(begun)._asdict(),
        "evidence": {
            "traces": ["ab"],
            "sampled": True,
            "unanswered": [],
            "log": [{"namespace": "n", "pod": "p", "line": "\x1b"}],
        },
    }
    text = list(lines(found))
    assert text[0].startswith("GET http://shop/rate/1 was answered 503 at ") and text[1] == f"from 10.0.0.9, request {ID}"
    table = "\n".join(text).splitlines()
    assert [line.split()[0] for line in table[3:7]] == ["gate.istio-system", "book.default", "book.default", "rating-v2.default"]
    assert table[6].endswith("its app answered so itself   <- here")
    assert "See also  meshctl trace ab" in text and "\x1b" not in "\n".join(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["last-9"], "error: last-9: must be last-503 (any status), last-5xx, last-4xx or last-failed"),
        (["last-503", "--pod", "a", "--from", "b"], "error: --pod and --from: give one of them"),
        (["x", "--since", "soon"], "error: --since soon: not a duration; write 30s or 1m30s"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", *words]) == 2
    assert capsys.readouterr().err.strip() == said
