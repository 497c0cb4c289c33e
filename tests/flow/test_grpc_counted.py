"""gRPC through the whole data path: what the record says of it, and what metrics make of that."""

from __future__ import annotations

from meshproxy.model.cluster import Workload
from meshproxy.model.report import LABELS
from meshproxy.telemetry.observe import Observer
from tests.flow.memnet import GET, OK, World
from tests.message.test_grpc import message

CALL = (
    b"POST /books.Books/Get HTTP/1.1\r\nhost: rating:8080\r\nte: trailers\r\ncontent-type: application/grpc\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def labels(world: World) -> tuple[dict[str, str], dict[str, float]]:
    """Of the one request: its labels, and the counters under them."""
    observer = Observer(Workload(workload="book"))
    for record in world.records:
        observer.finished(record, world.clock.now())
    families = {family.name: family for family in observer.families()}
    (row,) = families["istio_requests_total"].rows
    counts = {name: sum(row.value for row in families[name].rows) for name in families if name.endswith("_messages_total")}
    return dict(zip(LABELS, row.labels, strict=True)), counts


def test_a_call_with_trailers() -> None:
    world = World()
    client = world.client()
    client.deliver(CALL)
    app = world.accept()
    whole = message(3) + message(0) + message(300)
    client.deliver(chunk(whole[:4]) + chunk(whole[4:]) + b"0\r\n\r\n")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n"
    app.deliver(head + chunk(message(10)) + b"0\r\ngrpc-status: 5\r\n\r\n")
    assert client.take().endswith(b"grpc-status: 5\r\n\r\n")
    found, counts = labels(world)
    assert (found["request_protocol"], found["response_code"], found["grpc_response_status"]) == ("grpc", "200", "5")
    assert counts == {"istio_request_messages_total": 3, "istio_response_messages_total": 1}
    world.settled()


def test_trailers_only() -> None:
    world = World()
    client = world.client()
    client.deliver(CALL + b"0\r\n\r\n")
    world.accept().deliver(b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 12\r\ncontent-length: 0\r\n\r\n")
    assert b"grpc-status: 12" in client.take()
    assert labels(world)[0]["grpc_response_status"] == "12"


def test_our_own_answer() -> None:
    world = World()
    client = world.client()
    client.deliver(CALL + b"0\r\n\r\n")
    world.refuse()
    found = labels(world)[0]
    assert (found["grpc_response_status"], found["response_code"], found["response_flags"]) == ("14", "200", "UF")


def test_what_is_not_grpc_is_not_looked_at() -> None:
    world = World()
    client = world.client()
    client.deliver(GET)
    world.accept().deliver(OK)
    assert world.records[0].grpc is None
    found, counts = labels(world)
    assert (found["request_protocol"], found["grpc_response_status"]) == ("http", "")
    assert counts == {"istio_request_messages_total": 0, "istio_response_messages_total": 0}
