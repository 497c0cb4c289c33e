"""One request through the whole data path, and every way it can end early."""

from __future__ import annotations

import msgspec
import pytest

from meshproxy.message.reason import Reason
from meshproxy.model.cluster import ConnectionPool, Outlier
from meshproxy.model.route import Abort, Delay, DirectResponse, Fault, Forward, Mirror, Retry, WeightedCluster
from tests.flow.memnet import GET, OK, World, simple, status_of

RETRY = Retry(attempts=2, on=("5xx",))


def forward(**fields: object) -> Forward:
    return Forward(clusters=(WeightedCluster(cluster="c"),), **fields)  # type: ignore[arg-type]


def test_get_is_forwarded_and_the_answer_comes_back() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    sent = server.take()
    assert sent.startswith(b"GET /a HTTP/1.1\r\nhost: rating:8080\r\n")
    assert b"x-envoy-attempt-count: 1\r\n" in sent
    assert b"x-request-id: " in sent
    server.deliver(OK)
    answer = client.take()
    assert status_of(answer) == 200
    assert b"server: meshproxy\r\n" in answer
    assert b"x-envoy-upstream-service-time: 0\r\n" in answer
    assert answer.endswith(b"\r\n\r\nok")
    (record,) = world.records
    assert (record.status, record.attempts, record.cluster_name, record.flags) == (200, 1, "c", ())
    world.settled()


def test_a_response_without_a_date_gets_one_and_claims_of_ours_are_overwritten() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    server.deliver(b"HTTP/1.1 200 OK\r\nserver: app\r\nx-envoy-upstream-service-time: 9\r\ncontent-length: 0\r\n\r\n")
    answer = client.take()
    assert b"\r\ndate: Thu, 01 Jan 1970 00:16:40 GMT\r\n" in answer
    assert b"server: app" not in answer
    assert answer.count(b"x-envoy-upstream-service-time: ") == 1
    client.deliver(GET)
    server.deliver(b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 22:00:00 GMT\r\ncontent-length: 0\r\n\r\n")
    assert client.take().count(b"date: ") == 1


def test_second_request_reuses_both_connections() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    server.deliver(OK)
    client.deliver(GET)
    assert world.dials == []
    server.deliver(OK)
    assert client.take().count(b"HTTP/1.1 200") == 2
    world.settled()


def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(GET + GET.replace(b"/a", b"/b"))
    server = world.accept()
    assert server.take().count(b"GET ") == 1
    server.deliver(OK)
    assert b"GET /b" in server.take()
    server.deliver(OK)
    assert client.take().count(b"HTTP/1.1 200") == 2
    world.settled()


def test_round_robin_starts_at_the_first_endpoint() -> None:
    world = World()
    asked = []
    for _ in range(4):
        world.client().deliver(GET)
        asked.append(world.dials[-1].endpoint.address)
    assert asked == ["127.1.0.2", "127.1.0.3"] * 2


def test_refused_connection_is_503_with_envoys_words() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    world.refuse()
    answer = client.take()
    assert status_of(answer) == 503
    assert answer.endswith(
        b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, "
        b"transport failure reason: delayed connect error: Connection refused"
    )
    assert world.records[0].flags == (Reason.CONNECT_FAILURE,)
    world.settled()


def test_retry_on_connect_failure_goes_to_the_other_endpoint() -> None:
    world = World(simple(action=forward(retry=RETRY)))
    client = world.client()
    client.deliver(GET)
    assert world.dials[0].endpoint.address == "127.1.0.2"
    world.refuse()
    world.clock.advance(0.3)
    assert world.dials[0].endpoint.address == "127.1.0.3"
    server = world.accept()
    assert b"x-envoy-attempt-count: 2\r\n" in server.take()
    server.deliver(OK)
    assert status_of(client.take()) == 200
    assert world.records[0].attempts == 2
    world.settled()


def test_retry_on_503_drains_the_answer_and_keeps_the_connection() -> None:
    world = World(simple(action=forward(retry=RETRY)))
    client = world.client()
    client.deliver(GET)
    first = world.accept()
    first.deliver(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\n")
    first.deliver(b"down")
    world.clock.advance(0.3)
    second = world.accept()
    second.deliver(OK)
    assert status_of(client.take()) == 200
    assert not first.closing
    world.settled()


def test_retries_exhausted_pass_the_last_answer_on_with_urx() -> None:
    world = World(simple(action=forward(retry=RETRY), endpoints=1))
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    for _ in range(3):
        server.deliver(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\ndown")
        world.clock.advance(0.3)
    answer = client.take()
    assert status_of(answer) == 503
    assert answer.endswith(b"down")
    assert world.records[0].flags == (Reason.RETRY_EXHAUSTED,)
    assert world.records[0].attempts == 3
    assert {cluster.limits.retried for cluster in world.snapshot.clusters.values() if cluster.used} == {2}
    world.settled()


def test_connect_failures_exhausted_say_so() -> None:
    world = World(simple(action=forward(retry=RETRY), endpoints=1))
    client = world.client()
    client.deliver(GET)
    for _ in range(3):
        world.refuse()
        world.clock.advance(0.3)
    answer = client.take()
    assert b"retried and the latest reset reason: remote connection failure" in answer
    assert [flag.flag for flag in world.records[0].flags] == ["UF", "URX"]
    world.settled()


def test_body_is_replayed_on_retry() -> None:
    world = World(simple(action=forward(retry=RETRY)))
    client = world.client()
    client.deliver(b"POST /a HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 6\r\n\r\nabc")
    first = world.accept()
    client.deliver(b"def")
    assert first.take().endswith(b"abcdef")
    first.lose()
    world.clock.advance(0.3)
    second = world.accept()
    assert second.take().endswith(b"\r\n\r\nabcdef")
    second.deliver(OK)
    assert status_of(client.take()) == 200
    world.settled()


def test_body_over_the_replay_limit_is_not_retried() -> None:
    world = World(simple(action=forward(retry=RETRY)))
    world.corridor.max_replay = 4
    client = world.client()
    client.deliver(b"POST /a HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 6\r\n\r\nabc")
    first = world.accept()
    client.deliver(b"def")
    first.lose()
    assert status_of(client.take()) == 503
    world.settled()


def test_route_timeout_is_504_and_covers_all_tries() -> None:
    world = World(simple(action=forward(timeout=2.0, retry=RETRY)))
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    world.clock.advance(2.0)
    answer = client.take()
    assert status_of(answer) == 504
    assert answer.endswith(b"upstream request timeout")
    assert server.closing
    assert world.records[0].flags == (Reason.UPSTREAM_TIMEOUT,)
    world.settled()


def test_per_try_timeout_is_retried() -> None:
    world = World(simple(action=forward(retry=Retry(attempts=1, on=("5xx",), per_try_timeout=1.0))))
    client = world.client()
    client.deliver(GET)
    world.accept()
    world.clock.advance(1.3)
    server = world.accept()
    server.deliver(OK)
    assert status_of(client.take()) == 200
    world.settled()


def test_overflow_is_503_uo_with_its_header() -> None:
    world = World(simple(cluster={"pool": ConnectionPool(max_pending_requests=1)}, endpoints=1))
    world.client().deliver(GET)
    client = world.client()
    client.deliver(GET)
    answer = client.take()
    assert status_of(answer) == 503
    assert b"x-envoy-overloaded: true\r\n" in answer
    assert answer.endswith(b"reset reason: overflow")


def test_last_request_of_a_connection_says_so() -> None:
    world = World(simple(cluster={"pool": ConnectionPool(max_requests_per_connection=2)}, endpoints=1))
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    assert b"connection: close" not in server.take()
    server.deliver(OK)
    client.deliver(GET)
    assert b"connection: close" in server.take()
    server.deliver(OK)
    assert server.closing
    assert client.take().count(b"HTTP/1.1 200") == 2
    world.settled()


def test_no_endpoint_is_503_uh() -> None:
    world = World(simple(endpoints=0))
    client = world.client()
    client.deliver(GET)
    assert client.take().endswith(b"no healthy upstream")
    world.settled()


def test_unknown_cluster_is_503_nc_with_empty_body() -> None:
    world = World(simple(action=Forward(clusters=(WeightedCluster(cluster="gone"),))))
    client = world.client()
    client.deliver(GET)
    answer = client.take()
    assert status_of(answer) == 503
    assert b"content-length: 0\r\n" in answer
    assert world.records[0].flags == (Reason.NO_CLUSTER,)


def test_upstream_closing_before_the_head_is_503_uc() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    world.accept().lose()
    assert client.take().endswith(b"reset reason: connection termination")
    world.settled()


def test_upstream_garbage_is_502_upe() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    world.accept().deliver(b"nonsense\r\n\r\n")
    answer = client.take()
    assert status_of(answer) == 502
    assert answer.endswith(b"reset reason: protocol error")
    world.settled()


def test_upstream_cut_after_the_head_truncates() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    server.deliver(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    server.lose()
    assert client.aborted
    assert world.records[0].flags == (Reason.UPSTREAM_TERMINATION,)
    world.settled()


def test_client_gone_cancels_upstream_and_is_recorded_as_dc() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    client.lose()
    assert server.closing
    assert (world.records[0].status, world.records[0].flags) == (0, (Reason.DOWNSTREAM_GONE,))
    world.settled()


def test_client_gone_while_pending_leaves_the_queue() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    client.lose()
    world.accept()
    world.settled()


def test_client_gone_in_backoff() -> None:
    world = World(simple(action=forward(retry=RETRY)))
    client = world.client()
    client.deliver(GET)
    world.refuse()
    client.lose()
    world.clock.advance(1.0)
    assert world.dials == []
    world.settled()


def test_fault_delay_then_forward() -> None:
    world = World(simple(route={"fault": Fault(delay=Delay(seconds=3.0, percent=100.0))}))
    client = world.client()
    client.deliver(GET)
    assert world.dials == []
    world.clock.advance(3.0)
    world.accept().deliver(OK)
    assert status_of(client.take()) == 200
    assert [flag.flag for flag in world.records[0].flags] == ["DI"]
    world.settled()


def test_fault_abort() -> None:
    world = World(simple(route={"fault": Fault(abort=Abort(status=418, percent=100.0))}))
    client = world.client()
    client.deliver(GET)
    answer = client.take()
    assert status_of(answer) == 418
    assert answer.endswith(b"fault filter abort")
    assert world.dials == []
    world.settled()


def test_direct_response() -> None:
    world = World(simple(action=DirectResponse(status=299, body=b"hi")))
    client = world.client()
    client.deliver(GET)
    assert client.take().endswith(b"\r\n\r\nhi")
    world.settled()


def test_unmatched_host_passes_through_or_is_blocked() -> None:
    world = World()
    client = world.client()
    client.deliver(GET.replace(b"rating:8080", b"127.9.9.9:81"))
    assert world.dials[0].endpoint.key == ("127.9.9.9", 81)
    blocked = World(simple(listener={"default_policy": "REGISTRY_ONLY"}))
    client = blocked.client()
    client.deliver(GET.replace(b"rating:8080", b"127.9.9.9:81"))
    assert status_of(client.take()) == 502


def test_mirror_gets_a_shadow_and_its_answer_is_thrown_away() -> None:
    world = World(simple(action=forward(mirrors=(Mirror(cluster="c"),))))
    client = world.client()
    client.deliver(b"POST /a HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 6\r\n\r\nabc")
    assert len(world.dials) == 1
    client.deliver(b"def")
    assert len(world.dials) == 2
    wires = [world.accept(), world.accept()]
    sent = [wire.take() for wire in wires]
    shadow = next(index for index, data in enumerate(sent) if b"host: rating-shadow:8080" in data)
    assert all(data.endswith(b"\r\n\r\nabcdef") for data in sent)
    wires[shadow].deliver(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")
    wires[1 - shadow].deliver(OK)
    assert status_of(client.take()) == 200
    assert len(world.records) == 1
    world.settled()


def test_outlier_ejects_after_the_first_error_and_the_next_goes_elsewhere() -> None:
    world = World(simple(cluster={"outlier": Outlier(consecutive_5xx=1, max_ejection_percent=100)}))
    world.client().deliver(GET)
    world.accept().deliver(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")
    for _ in range(3):
        world.client().deliver(GET)
    assert {pool.endpoint.address for pool in world.dials} == {"127.1.0.3"}


def test_expect_continue_is_relayed_once_and_forbids_retry() -> None:
    world = World(simple(action=forward(retry=RETRY), endpoints=1))
    client = world.client()
    client.deliver(b"POST /a HTTP/1.1\r\nhost: rating:8080\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
    server = world.accept()
    assert b"expect: 100-continue\r\n" in server.take()
    server.deliver(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.deliver(b"abc")
    server.deliver(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")
    assert status_of(client.take()) == 503
    world.settled()


def test_upgrade_becomes_a_tunnel_and_half_close_passes() -> None:
    world = World()
    client = world.client()
    client.deliver(b"GET /chat HTTP/1.1\r\nhost: rating:8080\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    server = world.accept()
    assert b"upgrade: websocket\r\n" in server.take()
    server.deliver(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello")
    answer = client.take()
    assert status_of(answer) == 101
    assert answer.endswith(b"hello")
    client.deliver(b"\x81\x05")
    assert server.take() == b"\x81\x05"
    client.deliver_eof()
    assert server.eof
    server.deliver(b"bye")
    assert client.take() == b"bye"
    server.deliver_eof()
    assert world.records[0].status == 101
    world.settled()


def test_other_upgrades_than_websocket_are_refused() -> None:
    world = World()
    client = world.client()
    client.deliver(b"GET /chat HTTP/1.1\r\nhost: rating:8080\r\nconnection: upgrade\r\nupgrade: tls/1.0\r\n\r\n")
    assert status_of(client.take()) == 403
    assert world.dials == []
    world.settled()


def test_slow_client_pauses_upstream_and_back() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    server.deliver(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx")
    client.protocol.pause_writing()
    assert not server.reading
    client.protocol.resume_writing()
    assert server.reading


def test_slow_upstream_pauses_the_client_and_back() -> None:
    world = World()
    client = world.client()
    client.deliver(b"POST /a HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 100\r\n\r\nx")
    server = world.accept()
    server.protocol.pause_writing()
    assert not client.reading
    server.protocol.resume_writing()
    assert client.reading


def test_long_upload_before_a_connection_is_there_is_held_back() -> None:
    world = World()
    client = world.client()
    client.deliver(b"POST /a HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 10000000\r\n\r\n")
    client.deliver(b"x" * 300_000)
    assert not client.reading
    server = world.accept()
    assert client.reading
    assert len(server.take()) > 300_000


def test_configuration_swap_lets_a_request_finish_on_the_old_one() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    server = world.accept()
    world.install(simple(action=DirectResponse(status=204)))
    server.deliver(OK)
    assert status_of(client.take()) == 200
    client.deliver(GET)
    assert status_of(client.take()) == 204
    world.settled()


def test_unchanged_cluster_keeps_its_connection_over_a_swap() -> None:
    world = World(simple(endpoints=1))
    client = world.client()
    client.deliver(GET)
    world.accept().deliver(OK)
    world.install(simple(endpoints=1, action=forward(timeout=1.0)))
    client.deliver(GET)
    assert world.dials == []


def test_drain_answers_with_close_and_closes() -> None:
    world = World()
    busy, idle = world.client(), world.client()
    busy.deliver(GET)
    world.gate.draining = True
    for connection in list(world.gate.connections):
        connection.drain()
    assert not idle.closing  # its client may be writing just now
    server = world.accept()
    server.deliver(OK)
    assert b"connection: close\r\n" in busy.take()
    assert busy.closing
    idle.deliver(GET)
    world.accept().deliver(OK)
    assert b"connection: close\r\n" in idle.take()
    assert idle.closing


@pytest.mark.parametrize("early", [b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"])
def test_early_response_ends_the_exchange_and_the_upload(early: bytes) -> None:
    world = World()
    client = world.client()
    client.deliver(b"POST /a HTTP/1.1\r\nhost: rating:8080\r\ncontent-length: 100\r\n\r\nx")
    server = world.accept()
    server.deliver(early)
    answer = client.take()
    assert status_of(answer) == 413
    assert b"connection: close\r\n" in answer
    assert server.closing
    world.settled()


@pytest.mark.parametrize("direction", ["inbound", "gateway"])
def test_connect_to_an_app_is_refused(direction: str) -> None:
    """It was forwarded as a raw tunnel: past every route, and past whatever a directResponse was to keep out."""
    resources = simple()
    outbound = resources["listener"]["outbound"]
    changed = msgspec.structs.replace(outbound, direction=direction, route="8080", route_ports=())
    world = World({**resources, "listener": {"outbound": changed}})
    client = world.client()
    client.deliver(b"CONNECT rating:8080 HTTP/1.1\r\nhost: rating:8080\r\n\r\nGET /admin HTTP/1.1\r\nhost: rating\r\n\r\n")
    assert status_of(client.take()) == 403


def test_connect_opens_a_tunnel_under_the_egress_policy() -> None:
    world = World()
    client = world.client()
    client.deliver(b"CONNECT 127.9.9.9:443 HTTP/1.1\r\nhost: 127.9.9.9:443\r\n\r\n")
    server = world.accept()
    assert server.take() == b""
    assert status_of(client.take()) == 200
    client.deliver(b"\x16\x03\x01")
    assert server.take() == b"\x16\x03\x01"
    server.deliver(b"\x16")
    assert client.take() == b"\x16"
    blocked = World(simple(listener={"default_policy": "REGISTRY_ONLY"}))
    client = blocked.client()
    client.deliver(b"CONNECT 127.9.9.9:443 HTTP/1.1\r\nhost: 127.9.9.9:443\r\n\r\n")
    assert status_of(client.take()) == 502
