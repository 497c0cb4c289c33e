"""Room 4 (filters): who asks, for what, under which id. Runs first, because everything that matching looks at is settled here.

In: a request as the codec read it. Out: the path normalised (or 400), ``x-request-id`` (uuid4 when absent) and
``x-forwarded-proto`` set. Outbound, the headers by which an app steers a single request are obeyed (``policy.steering``) and
taken out. A gateway is the mesh's edge: it strips them, says itself what protocol and address the client came with, and appends
``x-forwarded-for``; a sidecar does not. A longer list than any path of proxies makes is a loop (508). CONNECT is refused (403)
but on outbound.

``x-forwarded-client-cert`` is believed only when it came over the mesh's mutual TLS: there an inbound sidecar appends its own
element to it (Envoy: APPEND_FORWARD); a gateway puts its own in its place (SANITIZE_SET); everywhere else, and from an app, it is
taken out (SANITIZE), also in spellings that an app takes for it (``message.head.spellings``). The peer's metadata
(``policy.peer_metadata``) is believed by the same rule, and never reaches an app.

Semantics: B2.9, B7.7, B8.7, B8.10; Envoy's ConnectionManagerUtility.
"""

from __future__ import annotations

from meshproxy.filters.chain import Filter
from meshproxy.filters.tracing import TRACED, trace_beginner, tracing_filter
from meshproxy.message.head import Headers, ResponseHead, spellings
from meshproxy.message.ports import InFlight
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Verdict
from meshproxy.policy.context import CompiledTracing, request_id
from meshproxy.policy.paths import Mode, normaliser
from meshproxy.policy.peer_metadata import METADATA, METADATA_ID, peer_workload
from meshproxy.policy.replies import local_reply
from meshproxy.policy.steering import STEERING, steered

__all__ = ["EDGE_HEADERS", "gateway_identity", "identity_response", "sidecar_identity"]

_XFCC = b"x-forwarded-client-cert"
# Made up by whoever sends them, unless mutual TLS says otherwise; in another spelling, always.
_CLAIMS = spellings(_XFCC) | spellings(METADATA) | spellings(METADATA_ID)
_LOOKED_AT = _CLAIMS | {b"x-request-id", b"x-forwarded-proto"}
_HTTPS = (b"x-forwarded-proto", b"https")

EDGE_HEADERS = frozenset(
    (
        _XFCC,
        b"x-envoy-attempt-count",
        b"x-envoy-decorator-operation",
        b"x-envoy-downstream-service-cluster",
        b"x-envoy-downstream-service-node",
        b"x-envoy-expected-rq-timeout-ms",
        b"x-envoy-external-address",
        b"x-envoy-force-trace",
        b"x-envoy-hedge-on-per-try-timeout",
        b"x-envoy-internal",
        b"x-envoy-ip-tags",
        b"x-envoy-is-timeout-retry",
        b"x-envoy-max-retries",
        b"x-envoy-original-path",
        b"x-envoy-original-url",
        METADATA,
        METADATA_ID,
        b"x-envoy-retriable-header-names",
        b"x-envoy-retriable-status-codes",
        b"x-envoy-retry-grpc-on",
        b"x-envoy-retry-on",
        b"x-envoy-upstream-alt-stat-name",
        b"x-envoy-upstream-rq-per-try-timeout-ms",
        b"x-envoy-upstream-rq-timeout-alt-response",
        b"x-envoy-upstream-rq-timeout-ms",
        b"x-envoy-upstream-stream-duration-ms",
    )
)
# Gateways that forward to each other would go on until the list outgrows a head: thousands of hops, a connection each.
_MOST_HOPS = 100
_EDGE_REPLACED = frozenset(
    spelling for name in EDGE_HEADERS | {b"x-forwarded-proto", b"x-forwarded-for"} for spelling in spellings(name)
)


def _refused() -> Verdict:
    return local_reply(Reason.BAD_REQUEST, detail="path_normalization_failed")


def _no_tunnel() -> Verdict:
    """CONNECT is for the pod's own way out, and of upgrades only WebSocket is allowed (semantics A9; Envoy: 403).

    Forwarded raw to an app, either would take its bytes past every rule.
    """
    return local_reply(Reason.UPGRADE_REFUSED)


def _claimed(exchange: InFlight, headers: Headers) -> list[bytes]:
    """Take out what is claimed of somebody's identity; what of ``x-forwarded-client-cert`` is to be passed on."""
    kept: list[bytes] = []
    secured = exchange.secured
    if secured is not None and secured.mesh:
        for name, value in headers:
            if name == _XFCC:
                kept.append(value)
            elif name == METADATA:
                secured.tells(peer_workload(value))
    headers[:] = [pair for pair in headers if pair[0] not in _CLAIMS]
    return kept


def identity_response(exchange: InFlight, head: ResponseHead) -> None:
    """Inbound's hook: who answers here, for a caller in the mesh that has not been told on this connection."""
    secured = exchange.secured
    if secured is not None and secured.mesh and exchange.own is not None and secured.told is not (lines := exchange.own.lines):
        secured.told = lines
        head.headers += exchange.own.pairs


def sidecar_identity(mode: Mode, tunnels: bool = False, tracing: CompiledTracing | None = None) -> Filter:
    """The filter for inbound and outbound. ``tunnels``: CONNECT is served (outbound).

    ``tracing``: what ``tracing_filter`` would do behind it is done at once, so that the headers of a request with neither an id
    nor a trace, as an app makes them, are looked through once and not twice. (benchmarks/micro_tracing.py "identity, and a trace
    begins, not sampled")
    """
    normalise = normaliser(mode)
    proto = (b"x-forwarded-proto", b"http")
    looked_at = _LOOKED_AT | STEERING if tunnels else _LOOKED_AT
    trace = begin = None
    if tracing is not None:
        looked_at |= TRACED
        trace, begin = tracing_filter(tracing), trace_beginner(tracing)

    def identity(exchange: InFlight, now: float) -> Verdict:
        request = exchange.request
        target = request.target
        clean = normalise(target)
        if clean is not target:
            if clean is None:
                return _refused()
            request.target = exchange.record.path = clean
        if (request.method == b"CONNECT" and not tunnels) or (request.upgrade and request.upgrade.lower() != b"websocket"):
            return _no_tunnel()
        headers = request.headers
        has_id = has_proto = claimed = steering = traced = False
        # One pass, one set test per header. (benchmarks/micro_policy.py "identity")
        for name, _ in headers:
            if name in looked_at:
                if name == b"x-request-id":
                    has_id = True
                elif name == b"x-forwarded-proto":
                    has_proto = True
                elif name in _CLAIMS:
                    claimed = True
                elif name in TRACED:
                    traced = True
                else:
                    steering = True
        secured = exchange.secured
        if secured is None:
            if claimed:
                _claimed(exchange, headers)
            if not has_proto:
                headers.append(proto)
        else:  # (benchmarks/micro_path.py "mesh inbound")
            element = secured.xfcc
            if claimed and (came := _claimed(exchange, headers)):
                element = b",".join((*came, element))
            if element:
                headers.append((_XFCC, element))
            if secured.workload is not None:
                exchange.record.peer = secured.workload
            if not has_proto:
                headers.append(_HTTPS)
        if not has_id:
            if begin is not None and not traced and not steering:
                return begin(exchange, now)
            headers.append((b"x-request-id", request_id(exchange.dice)[0]))
        if steering:  # the pod's own app asks for another timeout or more retries (semantics B2.9)
            exchange.compiled = steered(headers, exchange.route())
        return None if trace is None else trace(exchange, now)

    return identity


def gateway_identity(mode: Mode) -> Filter:
    """The filter for a gateway, the edge of the mesh."""
    normalise = normaliser(mode)
    proto = (b"x-forwarded-proto", b"http")

    def identity(exchange: InFlight, now: float) -> Verdict:
        request = exchange.request
        target = request.target
        clean = normalise(target)
        if clean is not target:
            if clean is None:
                return _refused()
            request.target = exchange.record.path = clean
        headers = request.headers
        if request.method == b"CONNECT" or (request.upgrade and request.upgrade.lower() != b"websocket"):
            return _no_tunnel()
        came = [value for name, value in headers if name == b"x-forwarded-for"]
        if b",".join(came).count(b",") >= _MOST_HOPS:
            return local_reply(Reason.LOOP_DETECTED)
        has_id = any(name == b"x-request-id" for name, _ in headers)
        headers[:] = [pair for pair in headers if pair[0] not in _EDGE_REPLACED]
        came.append(exchange.source.encode())
        headers.append((b"x-forwarded-for", b",".join(came)))
        secured = exchange.secured
        if secured is None:
            headers.append(proto)
        else:
            headers.append(_HTTPS)
            if secured.xfcc:
                headers.append((_XFCC, secured.xfcc))
        if not has_id:
            headers.append((b"x-request-id", request_id(exchange.dice)[0]))
        return None

    return identity
