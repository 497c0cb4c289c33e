"""The record of one exchange: everything metrics, access log and traces are made of. Filled on the way, read once at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshproxy.message.grpc import GrpcTally, is_grpc
from meshproxy.message.reason import flag_rank

if TYPE_CHECKING:
    from meshproxy.message.decision import Decision
    from meshproxy.message.head import Headers, RequestHead
    from meshproxy.message.reason import Reason
    from meshproxy.message.secured import Secured
    from meshproxy.message.traced import Traced

__all__ = ["ExchangeRecord", "StreamRecord"]

_NONE: Headers = []  # no response headers yet; never written to
_NO_PARAMS: frozenset[bytes] = frozenset()


class ExchangeRecord:
    """Times are monotonic seconds, except ``wall`` (Unix seconds at the head). Sizes are bytes.

    ``listener``: the compiled listener (has ``name``, ``direction``). ``endpoint``: the live endpoint of the last try, or None.
    ``cluster_name``: "" when none was chosen. ``chosen``: the compiled route, None until a request has one.
    ``request_size``/``response_size`` count heads and bodies on the wire (metrics); ``body_received``/``body_sent`` bodies only
    (access log). ``flags``: reasons in order, each once.
    ``service``: model Service of the cluster, or None. ``grpc``: of a gRPC call its messages and status, else None.
    ``decisions``: what policies said (``message.decision``), in order. ``hidden_params``: query parameters that hold tokens; they
    are out of ``path`` already.
    """

    __slots__ = (
        "attempts",
        "authority",
        "body_received",
        "body_sent",
        "chosen",
        "cluster_name",
        "decisions",
        "detail",
        "downstream_local",
        "downstream_remote",
        "endpoint",
        "ended",
        "first_upstream_byte",
        "flags",
        "grpc",
        "hidden_params",
        "listener",
        "method",
        "path",
        "peer",
        "protocol",
        "request_headers",
        "request_size",
        "response_headers",
        "response_size",
        "route_name",
        "secured",
        "service",
        "started",
        "status",
        "trace",
        "transport_failure",
        "upstream_local",
        "upstream_secured",
        "upstream_started",
        "wall",
    )

    def __init__(
        self,
        listener: Any,
        started: float,
        wall: float,
        head: RequestHead | None = None,
        remote: tuple[str, int] | None = None,
        local: tuple[str, int] | None = None,
    ) -> None:
        """``head``: None for a request that never had one."""
        self.listener = listener
        self.started = started
        self.wall = wall
        if head is None:
            self.method = self.path = self.authority = b""
            self.protocol = 11
            self.request_size = 0
            self.request_headers: Headers = []
            self.grpc: GrpcTally | None = None
        else:
            self.method = head.method
            self.path = head.target
            self.authority = head.authority
            self.protocol = head.version
            self.request_size = head.size
            self.request_headers = head.headers
            # Every gRPC client says te: trailers, and hardly anybody else does.
            self.grpc = GrpcTally() if head.te_trailers and is_grpc(head.headers) else None
        self.downstream_remote = remote
        self.downstream_local = local
        self.ended = 0.0
        self.upstream_started = 0.0
        self.first_upstream_byte = 0.0
        self.hidden_params: frozenset[bytes] = _NO_PARAMS
        self.status = 0
        self.detail = "via_upstream"
        self.flags: tuple[Reason, ...] = ()
        self.decisions: tuple[Decision, ...] = ()
        self.attempts = 0
        self.cluster_name = ""
        self.service: Any = None
        self.endpoint: Any = None
        self.route_name = ""
        self.chosen: Any = None
        self.response_size = 0
        self.body_received = 0
        self.body_sent = 0
        self.response_headers: Headers = _NONE
        self.upstream_local: tuple[str, int] | None = None
        self.upstream_secured: Secured | None = None  # the TLS of the last try's connection
        self.peer: Any = None  # model Workload of the downstream peer on inbound, or None
        self.secured: Secured | None = None  # the downstream connection's TLS; None: plaintext
        self.transport_failure = ""
        self.trace: Traced | None = None  # its span, when it is sampled

    def flag(self, reason: Reason) -> None:
        """Add a response flag once, in Envoy's order."""
        if reason not in self.flags:
            self.flags = tuple(sorted((*self.flags, reason), key=flag_rank))

    @property
    def sni(self) -> str:
        """The server name that the client asked for."""
        return self.secured.sni if self.secured is not None else ""

    @property
    def termination(self) -> str:
        """Why we ended a connection of plain bytes; never of a request."""
        return ""


class StreamRecord(ExchangeRecord):
    """Of a connection whose bytes are relayed. ``body_received``/``body_sent``: of the client's side, so far. ``told``:
    (received, sent) that metrics know of already; None before they know of the connection at all.
    """

    __slots__ = ("name", "reason", "told")

    def __init__(
        self,
        listener: Any,
        started: float,
        wall: float,
        remote: tuple[str, int] | None,
        local: tuple[str, int] | None,
        name: str = "",
    ) -> None:
        """name: the ClientHello's server name, of TLS that is passed through."""
        super().__init__(listener, started, wall, None, remote, local)
        self.protocol = 0
        self.detail = ""
        self.name = name
        self.reason = ""
        self.told: tuple[int, int] | None = None

    @property
    def sni(self) -> str:
        return self.name or super().sni

    @property
    def termination(self) -> str:
        return self.reason
