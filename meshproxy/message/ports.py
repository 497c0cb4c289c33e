"""What a quiet room may ask of the world, as Protocols: implemented elsewhere, named here.

Sinks are called directly by codecs (no event objects). ``now`` is the loop's clock in seconds, read once per callback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from meshproxy.message.head import Headers, RequestHead, ResponseHead
    from meshproxy.message.reason import Reason
    from meshproxy.message.record import ExchangeRecord, StreamRecord

__all__ = [
    "Cancel",
    "ClusterPort",
    "Dice",
    "Downstream",
    "EndpointPort",
    "InFlight",
    "Observer",
    "RequestSink",
    "ResponseSink",
    "Timers",
    "Upstream",
]

Dice = Callable[[], float]  # a draw from [0, 1)
Cancel = Callable[[], object]


class RequestSink(Protocol):
    """What the server codec tells the exchange about one request. After ``end`` nothing but ``on_downstream_closed`` comes."""

    def on_request_head(self, head: RequestHead, end: bool, now: float) -> None: ...
    def on_request_data(self, data: bytes, end: bool, now: float) -> None: ...
    def on_request_end(self, trailers: Headers, now: float) -> None: ...  # end of a chunked body; trailers may be empty
    def on_request_error(self, reason: Reason, now: float) -> None: ...  # malformed after the head was passed on
    def on_downstream_closed(self, now: float) -> None: ...  # the connection is gone before the exchange finished


class Downstream(Protocol):
    """The server codec as the exchange sees it: the response's way out. Writes never raise."""

    def send_informational(self, status: int, headers: Headers) -> None: ...
    def send_head(self, head: ResponseHead, end: bool) -> None: ...  # may be held back until data, end or flush
    def send_data(self, data: bytes, end: bool) -> None: ...
    def send_trailers(self, trailers: Headers) -> None: ...  # ends the message
    def flush(self) -> None: ...  # write what is held back
    def reset(self) -> None: ...  # the response cannot be completed: abort the connection
    def pause_reading(self) -> None: ...  # counted
    def resume_reading(self) -> None: ...
    def start_tunnel(self) -> None: ...  # after a 101 or a CONNECT's 200: bytes both ways are raw


class ResponseSink(Protocol):
    """What the client codec tells the attempt about one response."""

    def on_informational(self, status: int, headers: Headers, now: float) -> None: ...
    def on_response_head(self, head: ResponseHead, end: bool, now: float) -> None: ...
    def on_response_data(self, data: bytes, end: bool, now: float) -> None: ...
    def on_response_end(self, trailers: Headers, now: float) -> None: ...
    def on_response_flush(self, now: float) -> None: ...  # end of one read: nothing more is in hand
    def on_upstream_failed(self, reason: Reason, now: float) -> None: ...  # before the message was complete


class Upstream(Protocol):
    """A lease: one request's stream on an upstream connection."""

    def send_head(self, head: RequestHead, end: bool) -> None: ...
    def send_data(self, data: bytes, end: bool) -> None: ...
    def send_trailers(self, trailers: Headers) -> None: ...
    def abandon(self) -> None: ...  # the exchange no longer wants the answer: reset the stream, close the connection
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Timers(Protocol):
    """The clock. ``later``'s answer cancels; ``now`` is for callbacks of timers, which are handed no time."""

    def now(self) -> float: ...
    def later(self, seconds: float, call: Callable[[], None]) -> Cancel: ...


class Observer(Protocol):
    def finished(self, record: ExchangeRecord, now: float) -> None: ...
    def streamed(self, record: StreamRecord, now: float, over: bool) -> None: ...  # first call: opened; then now and again


class EndpointPort(Protocol):
    """A live endpoint (cluster/endpoint.py). ``pool`` is upstream's own slot; ``active`` counts requests in flight."""

    address: str
    port: int
    pool: Any
    active: int
    workload: Any  # model Workload | None


class ClusterPort(Protocol):
    """A live cluster (cluster/cluster.py): it survives configuration swaps while its name stays."""

    name: str
    config: Any  # model Cluster
    limits: Any  # policy.limits.Limits

    def pick(self, request: RequestHead, source: str, tried: tuple[Any, ...], now: float, dice: Dice) -> Any: ...
    def report(self, endpoint: Any, status: int, local: bool, now: float) -> None: ...


class InFlight(Protocol):
    """The exchange as filters see it."""

    request: RequestHead
    record: ExchangeRecord
    listener: Any  # compiled listener
    source: str  # the direct peer's IP address
    remote: tuple[str, int] | None
    local: tuple[str, int] | None
    secured: Any  # message.secured.Secured of the downstream connection; None: plaintext
    compiled: Any  # what route() chose; a filter may put a changed copy in its place
    choice: Any  # policy.compiled.Choice, set by the route filter; None before
    cors_origin: bytes  # the allowed Origin, set by the CORS filter on a cross-origin request only (else the slot is empty)
    vouched: Headers  # the authoriser's headers for the response, set by the ext_authz filter only (else the slot is empty)

    @property
    def dice(self) -> Dice: ...
    @property
    def precise(self) -> Callable[[], int]: ...  # Unix nanoseconds, for spans
    @property
    def own(self) -> Any: ...  # policy.peer_metadata.OwnMetadata; None: nobody is told who we are
    def route(self) -> Any: ...  # policy.compiled.CompiledRoute | None, chosen once
    def clear_route(self) -> None: ...  # a filter changed what matching looks at
