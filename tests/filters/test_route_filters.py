"""CORS, fault and route filters on an exchange: what each decides, and how they work together."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.filters.chain import run
from meshproxy.filters.cors import cors, cors_response
from meshproxy.filters.fault import fault_abort, fault_delay
from meshproxy.filters.route import route_filter, route_response
from meshproxy.message.head import RequestHead, ResponseHead
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Reply, Wait
from meshproxy.model.match import RouteMatch
from meshproxy.model.route import Abort, Cors, Delay, DirectResponse, Fault, HeaderOps, Redirect, Rewrite, Route
from meshproxy.policy.compiled import block_all
from meshproxy.policy.routes import PortTables, RouteTable
from tests.policy.fakes import CLUSTERS, FakeExchange, config, exact, get, host, prefix, to

CORS = Cors(allow_origins=(exact("https://ok"),), allow_methods=("GET",), expose_headers=("x-e",))


def exchange(route: Route, request: RequestHead | None = None, *draws: float) -> FakeExchange:
    return FakeExchange(RouteTable(config(host(route)), CLUSTERS.get), request or get(), draws)


def preflight(origin: str) -> RequestHead:
    return get(method="OPTIONS", origin=origin, access_control_request_method="GET")


def answered(verdict: Any) -> Reply:
    assert isinstance(verdict, Reply)
    return verdict


def test_cors_answers_an_allowed_preflight() -> None:
    reply = answered(cors(exchange(Route(action=to("a"), cors=CORS), preflight("https://ok")), 0.0))
    assert (reply.head.status, dict(reply.head.headers)[b"access-control-allow-origin"]) == (200, b"https://ok")


def test_cors_lets_another_origins_preflight_pass_without_headers() -> None:
    passing = exchange(Route(action=to("a"), cors=CORS), preflight("https://no"))
    assert cors(passing, 0.0) is None
    head = ResponseHead(200, [])
    cors_response(passing, head)
    assert head.headers == []


def test_cors_can_answer_an_unmatched_preflight_itself() -> None:
    strict = Cors(allow_origins=(exact("https://ok"),), forward_unmatched_preflights=False)
    reply = answered(cors(exchange(Route(action=to("a"), cors=strict), preflight("https://no")), 0.0))
    assert (reply.head.status, reply.head.headers) == (200, [(b"content-length", b"0")])
    assert cors(exchange(Route(action=to("a"), cors=strict), get(origin="https://no")), 0.0) is None


def test_cors_decorates_an_actual_response_even_if_an_operation_removed_the_origin() -> None:
    passing = exchange(Route(action=to("a"), cors=CORS, request_headers=HeaderOps(remove=("origin",))), get(origin="https://ok"))
    assert run((cors, route_filter(None)), passing, 0.0) == (2, None)
    assert passing.request.headers == []
    head = ResponseHead(200, [])
    cors_response(passing, head)
    assert head.headers == [(b"access-control-allow-origin", b"https://ok"), (b"access-control-expose-headers", b"x-e")]


def test_cors_asks_for_no_route_without_an_origin() -> None:
    plain = exchange(Route(action=to("a"), cors=CORS))
    assert cors(plain, 0.0) is None
    assert plain.asked == 0


@pytest.mark.parametrize("action", [DirectResponse(status=200), Redirect(path="/b")])
def test_cors_stays_out_of_redirects_and_direct_responses(action: Any) -> None:
    assert cors(exchange(Route(action=action, cors=CORS), preflight("https://ok")), 0.0) is None


def test_faults_are_drawn_independently_delay_first() -> None:
    fault = Fault(delay=Delay(seconds=2.5, percent=50), abort=Abort(percent=50, status=555))
    chain = (fault_delay, fault_abort, route_filter(None))

    def walk(*draws: float) -> list[Any]:
        one = exchange(Route(action=to("a"), fault=fault), None, *draws)
        seen: list[Any] = []
        at, verdict = run(chain, one, 0.0)
        while isinstance(verdict, Wait):
            seen.append((verdict.seconds, verdict.flag))
            at, verdict = run(chain, one, verdict.seconds, at + 1)
        seen.append(answered(verdict).head.status if verdict is not None else at)
        return seen

    delayed = (2.5, Reason.FAULT_DELAY)
    assert walk(0.9, 0.9) == [3]
    assert walk(0.1, 0.9) == [delayed, 3]
    assert walk(0.9, 0.1) == [555]
    assert walk(0.1, 0.1) == [delayed, 555]


def test_faults_without_a_route_or_a_share_draw_nothing() -> None:
    nowhere = FakeExchange(RouteTable(config(), CLUSTERS.get), get(), (0.0,))
    unset = exchange(Route(action=to("a"), fault=Fault(abort=Abort(percent=0, status=500))), None, 0.0)
    for one in (nowhere, unset):
        assert fault_delay(one, 0.0) is None and fault_abort(one, 0.0) is None
        assert one.dice() == 0.0  # still there


def test_no_route_is_404_with_an_empty_body() -> None:
    nowhere = FakeExchange(RouteTable(config(), CLUSTERS.get), get())
    reply = answered(route_filter(None)(nowhere, 0.0))
    assert (reply.head.status, reply.body, reply.reason, nowhere.choice) == (404, b"", Reason.NO_ROUTE, None)


def test_no_cluster_is_503_and_leaves_its_name_in_the_record() -> None:
    lost = exchange(Route(action=to("nope")))
    reply = answered(route_filter(None)(lost, 0.0))
    assert (reply.head.status, reply.body, reply.reason, lost.record.cluster_name) == (503, b"", Reason.NO_CLUSTER, "nope")


def test_one_destination_needs_no_draw_several_do() -> None:
    one = exchange(Route(action=to("a")), None, 0.99)
    assert route_filter(None)(one, 0.0) is None
    assert one.choice.name == "a" and one.dice() == 0.99
    two = exchange(Route(action=to("a=75", "b=25")), None, 0.76)
    assert route_filter(None)(two, 0.0) is None
    assert (two.choice.name, two.choice.cluster) == ("b", CLUSTERS["b"])


def test_operations_see_the_path_before_the_rewrite() -> None:
    route = Route(
        match=RouteMatch(path=prefix("/old")),
        action=to("a", rewrite=Rewrite(prefix=("/old", "/new"), authority="b.example")),
        request_headers=HeaderOps(set=(("x-was", "%REQ(:path)%"),)),
    )
    one = exchange(route, get("/old/x?y"))
    assert route_filter(None)(one, 0.0) is None
    assert (one.request.target, one.request.authority) == (b"/new/x?y", b"b.example")
    assert one.request.headers == [(b"x-was", b"/old/x?y"), (b"x-envoy-original-path", b"/old/x?y")]


def test_direct_response_and_its_operations() -> None:
    one = exchange(Route(action=DirectResponse(status=418, body=b"tea"), response_headers=HeaderOps(add=(("x-a", "1"),))))
    reply = answered(route_filter(None)(one, 0.0))
    route_response(one, reply.head)
    assert (reply.head.status, reply.body) == (418, b"tea")
    assert reply.head.headers == [(b"content-length", b"3"), (b"content-type", b"text/plain"), (b"x-a", b"1")]


def test_a_redirect_derives_the_listeners_port_or_the_authoritys() -> None:
    route = Route(action=Redirect(derive_port="FROM_REQUEST_PORT"))
    at_gateway = answered(route_filter(8443)(exchange(route, get("/a", "h.example")), 0.0))
    outbound = answered(route_filter(None)(exchange(route, get("/a", "rating:8080")), 0.0))
    assert dict(at_gateway.head.headers)[b"location"] == b"http://h.example:8443/a"
    assert dict(outbound.head.headers)[b"location"] == b"http://rating:8080/a"


def test_block_all_names_the_black_hole() -> None:
    one = FakeExchange(PortTables({}, block_all()), get())
    reply = answered(route_filter(None)(one, 0.0))
    assert (reply.head.status, reply.reason, one.record.cluster_name) == (502, Reason.EGRESS_BLOCKED, "BlackHoleCluster")


def test_response_operations_run_only_after_the_route_filter() -> None:
    one = exchange(Route(action=to("a"), response_headers=HeaderOps(set=(("x-s", "%RESP(etag)%"),))))
    before = ResponseHead(503, [])
    route_response(one, before)
    assert before.headers == []
    route_filter(None)(one, 0.0)
    after = ResponseHead(200, [(b"etag", b"7")])
    route_response(one, after)
    assert after.headers == [(b"etag", b"7"), (b"x-s", b"7")]
