"""What to do about each early end of a request: data for ``meshctl why``, beside ``message.reason.Reason`` and ``TokenFault``.

Status, flag, detail and body are the sidecar's own table; here is only what they mean to who asks, and what helps. A test
holds every reason to have its entry. Words in braces are filled in by ``why_story``; advice is left out where they are not known.
"""

from __future__ import annotations

from typing import NamedTuple

from meshproxy.message.reason import Reason
from meshproxy.message.token import TokenFault

__all__ = ["ADVICE", "APP", "CONFIGURED", "TLS", "TOKENS", "UNTRACED", "Advice"]


class Advice(NamedTuple):
    """``means``: one sentence. ``do``: commands or one sentence each, the likeliest first."""

    means: str
    do: tuple[str, ...]


_EXPLAIN = "{explain}"
_ENDPOINTS = "meshctl proxy-config endpoint {pod} --cluster '{cluster}'"
_APP_LOG = "kubectl logs -n {target_ns} {target_pod}"
_PROXY_LOG = "kubectl logs -n {ns} {name} -c istio-proxy"
_TARGET_LOG = "kubectl logs -n {target_ns} {target_pod} -c istio-proxy"
_SHOW_ROUTE = "{show_source}"
_SHOW_RULE = "{show_rule}"

APP = Advice(
    "The app answered so itself; the mesh only passed it on.",
    (_APP_LOG, "{curl}", "{retry_hint}"),
)
CONFIGURED = Advice(
    "A rule answers such requests itself (directResponse or redirect); nobody was asked.", (_SHOW_ROUTE, _EXPLAIN)
)
UNTRACED = Advice("The sidecar answered for a reason that this meshctl does not know.", (_EXPLAIN, _PROXY_LOG))
TLS = Advice(
    "TLS with the endpoint could not be agreed on, so the request was never sent.",
    (
        _SHOW_RULE,
        "meshctl proxy-config secret {pod}",
        "meshctl proxy-config secret {target}",
        _TARGET_LOG,
        _EXPLAIN,
        "meshctl x mtls report",
    ),
)

ADVICE: dict[Reason, Advice] = {
    Reason.NO_ROUTE: Advice(
        "No rule of this host matches the request: not its path, method or headers.",
        (_EXPLAIN, "Add an http rule that matches, or one without `match` as the last of the VirtualService.", "meshctl analyze"),
    ),
    Reason.NO_CLUSTER: Advice(
        "The route names a destination that does not exist: a subset in no DestinationRule, or a host that is no service.",
        ("meshctl analyze", _SHOW_ROUTE, "kubectl get destinationrules -A", "kubectl get services -A"),
    ),
    Reason.NO_HEALTHY_UPSTREAM: Advice(
        "No endpoint of the destination takes requests: there is none, or all of them are ejected.",
        (_ENDPOINTS, "kubectl get pods -n {service_ns} -o wide", _SHOW_RULE),
    ),
    Reason.OVERFLOW: Advice(
        "A limit of the connection pool (circuit breaker) was reached: the request was refused instead of waiting.",
        (_SHOW_RULE, _ENDPOINTS, "Raise trafficPolicy.connectionPool, or add replicas; clients should slow down until then."),
    ),
    Reason.CONNECT_FAILURE: Advice(
        "The endpoint could not be connected to: nobody listens there, or it is not to be reached.",
        ("kubectl get pods -n {target_ns} {target_pod}", _APP_LOG, _ENDPOINTS),
    ),
    Reason.CONNECT_TIMEOUT: Advice(
        "The endpoint did not take the connection in time.",
        ("kubectl get pods -n {target_ns} {target_pod} -o wide", _ENDPOINTS, "{rule_hint}"),
    ),
    Reason.UPSTREAM_TERMINATION: Advice(
        "The endpoint closed the connection before it had answered: it crashed, restarted, or closes idle connections early.",
        (
            "kubectl get pods -n {target_ns} {target_pod}",
            _APP_LOG,
            "If it closes idle connections, give connectionPool.http.idleTimeout less time than it does, or retry on reset.",
        ),
    ),
    Reason.UPSTREAM_REMOTE_RESET: Advice(
        "The endpoint reset the request.", (_APP_LOG, "A retry on `reset` would go to another endpoint.")
    ),
    Reason.UPSTREAM_PROTOCOL_ERROR: Advice(
        "What the endpoint sent is no HTTP response that can be passed on.",
        (_APP_LOG, "{curl}", "Look whether the port speaks HTTP at all: its name or appProtocol."),
    ),
    Reason.UPSTREAM_HEADERS_TOO_LARGE: Advice(
        "The head of the response is larger than 60 KiB, or has too many headers.",
        ("{curl}", "Make the app send less: usually it is cookies."),
    ),
    Reason.UPSTREAM_TIMEOUT: Advice(
        "The route's timeout was over before the response was: for all tries together.",
        (_SHOW_ROUTE, _APP_LOG, "meshctl trace {trace}", "Raise `timeout` of the rule, or make the destination faster."),
    ),
    Reason.PER_TRY_TIMEOUT: Advice(
        "The last try had no response within perTryTimeout.",
        (_SHOW_ROUTE, _APP_LOG, "Raise retries.perTryTimeout of the rule, or make the destination faster."),
    ),
    Reason.RETRY_EXHAUSTED: Advice(
        "All retries that the rule allows were used up; the client got what the last try brought.",
        (_SHOW_ROUTE, _ENDPOINTS),
    ),
    Reason.LOCAL_RESET: Advice("This sidecar gave the request up by itself.", (_PROXY_LOG,)),
    Reason.FAULT_ABORT: Advice(
        "The failure is on purpose: the rule injects it (fault.abort).",
        (_SHOW_ROUTE, "Take `fault` out of the rule when the test is over."),
    ),
    Reason.FAULT_DELAY: Advice(
        "The request was delayed on purpose first: the rule injects it (fault.delay).",
        (_SHOW_ROUTE, "Take `fault` out of the rule when the test is over."),
    ),
    Reason.TOKEN_REFUSED: Advice(
        "The end user's token was not good; a request without any token would have got past this check.",
        (
            '{explain} -H "Authorization: Bearer $TOKEN"',
            "kubectl get requestauthentications -n {ns} -o yaml",
            "kubectl get --raw /mesh/v1/jwks",
        ),
    ),
    Reason.TOKEN_AUDIENCE: Advice(
        "The token is good, but made out to another audience than the RequestAuthentication wants.",
        (
            "kubectl get requestauthentications -n {ns} -o yaml",
            "Ask the issuer for a token of that audience, or add it to `audiences`.",
        ),
    ),
    Reason.RBAC_DENIED: Advice(
        "An AuthorizationPolicy does not let this caller do this.",
        ("{show_policy}", "{explain_as}", "meshctl x authz check {pod}"),
    ),
    Reason.EXT_AUTHZ_DENIED: Advice(
        "The external authoriser that a CUSTOM policy asks said no; its answer went to the client.",
        ("kubectl get authorizationpolicies -n {ns}", "Look into the authoriser's own log."),
    ),
    Reason.EXT_AUTHZ_ERROR: Advice(
        "The external authoriser gave no usable answer in time, so the request was denied (it fails closed).",
        (
            "kubectl get authorizationpolicies -n {ns}",
            "kubectl get configmap istio -n istio-system -o yaml",
            "Look whether the provider's service has endpoints; `failOpen` of the provider would let requests through meanwhile.",
        ),
    ),
    Reason.RATE_LIMITED: Advice("A rate limit was reached.", (_EXPLAIN, "Let the client wait and try again later.")),
    Reason.EGRESS_BLOCKED: Advice(
        "The host is not known to the mesh, and outboundTrafficPolicy is REGISTRY_ONLY.",
        (
            "Add a ServiceEntry for {host}, or set outboundTrafficPolicy ALLOW_ANY.",
            _EXPLAIN,
            "kubectl get serviceentries,sidecars -A",
        ),
    ),
    Reason.EGRESS_REFUSED: Advice(
        "The sidecar does not connect there: it is its own port, or the caller is not this pod's app.",
        (_EXPLAIN, "Let the app call the service by its name instead of an address of a sidecar's port."),
    ),
    Reason.MISDIRECTED: Advice(
        "The request came on a TLS connection that was opened for another host of this gateway.",
        (
            "Let the client open a connection for {host}: servers with different TLS settings share none.",
            "kubectl get gateways -A -o yaml",
        ),
    ),
    Reason.LOOP_DETECTED: Advice(
        "The request would have come back to this very proxy again and again.",
        (_EXPLAIN, "Look at where the app's port and the route's destination point: one of them is the proxy itself."),
    ),
    Reason.DOWNSTREAM_GONE: Advice(
        "The client went away before it had its answer: it gave up, or its own timeout was shorter than this took.",
        ("Look at the client's timeout: {took} were not enough for it.", "meshctl trace {trace}", "{explain}"),
    ),
    Reason.BAD_REQUEST: Advice(
        "What the client sent is no HTTP request that can be read in one way only; nothing was passed on.",
        (_PROXY_LOG, "The detail {detail} names what is wrong with it; mend the client."),
    ),
    Reason.HEADERS_TOO_LARGE: Advice(
        "The request's head is larger than 60 KiB, or has too many headers.",
        ("Make the client send less: usually it is cookies or a token.",),
    ),
    Reason.NOT_IMPLEMENTED: Advice(
        "The client uses a Transfer-Encoding other than chunked.", ("Let the client send its body plain or chunked.",)
    ),
    Reason.VERSION_NOT_SUPPORTED: Advice(
        "The client speaks a version of HTTP that is not spoken here.", ("Let the client speak HTTP/1.1.",)
    ),
    Reason.UPGRADE_REFUSED: Advice(
        "The client asked for another protocol (Upgrade or CONNECT) that is not allowed here.",
        (_EXPLAIN, "WebSocket is; for other protocols use a TCP port."),
    ),
    Reason.STREAM_IDLE_TIMEOUT: Advice(
        "Nothing was sent or received for too long within the request.",
        ("Let the app or the client send something now and then.", _APP_LOG),
    ),
    Reason.REQUEST_TIMEOUT: Advice(
        "The client took too long to send its request's head.", ("Look at the client, and at the network between.",)
    ),
    Reason.NO_CONFIG: Advice(
        "The sidecar had no configuration yet.",
        ("meshctl proxy-status {pod}", _PROXY_LOG, "Wait until the pod is ready before traffic is sent to it."),
    ),
    Reason.OVERLOAD: Advice(
        "The sidecar had more to do than it takes on.",
        ("meshctl top pods", "Add replicas, or give the sidecar more workers (--concurrency)."),
    ),
    Reason.DRAINING: Advice(
        "The sidecar was about to stop and took nothing new.",
        (
            "kubectl get pods -n {ns}",
            "A retry on connect-failure,reset,unavailable goes to another endpoint while pods are replaced.",
        ),
    ),
    Reason.BUG: Advice(
        "The sidecar has a bug; it closed this one connection and went on.",
        (_PROXY_LOG, "Please report the traceback that is in this log."),
    ),
}

_KEYS = (
    "kubectl get --raw /mesh/v1/jwks",
    "Look at jwksUri or jwks of the RequestAuthentication; without keys no token is good.",
)
_MALFORMED = ("The client sends no token of this form at all: let it send what the issuer gave it, whole and unquoted.",)
_ISSUER = ("Mend it at the issuer: the token says something that a token must not.",)

# What helps beyond TOKEN_REFUSED's own advice.
TOKENS: dict[TokenFault, tuple[str, ...]] = {
    TokenFault.NOT_YET_VALID: ("Compare the clocks of the issuer and of this machine: nbf is in the future.",),
    TokenFault.EXPIRED: ("Let the client ask its issuer for a new token.",),
    TokenFault.BAD_FORMAT: _MALFORMED,
    TokenFault.HEADER_BASE64: _MALFORMED,
    TokenFault.HEADER_JSON: _MALFORMED,
    TokenFault.HEADER_ALG: _ISSUER,
    TokenFault.HEADER_ALG_UNKNOWN: ("Let the issuer sign with RS, PS, ES, EdDSA or HS.",),
    TokenFault.HEADER_KID: _ISSUER,
    TokenFault.PAYLOAD_BASE64: _MALFORMED,
    TokenFault.PAYLOAD_JSON: _MALFORMED,
    TokenFault.PAYLOAD_ISS: _ISSUER,
    TokenFault.PAYLOAD_SUB: _ISSUER,
    TokenFault.PAYLOAD_IAT: _ISSUER,
    TokenFault.PAYLOAD_IAT_RANGE: _ISSUER,
    TokenFault.PAYLOAD_NBF: _ISSUER,
    TokenFault.PAYLOAD_NBF_RANGE: _ISSUER,
    TokenFault.PAYLOAD_EXP: _ISSUER,
    TokenFault.PAYLOAD_EXP_RANGE: _ISSUER,
    TokenFault.PAYLOAD_JTI: _ISSUER,
    TokenFault.PAYLOAD_AUD: _ISSUER,
    TokenFault.SIGNATURE_BASE64: _MALFORMED,
    TokenFault.SIGNATURE_LENGTH: _MALFORMED,
    TokenFault.UNKNOWN_ISSUER: ("No RequestAuthentication here has the token's issuer: compare `iss` with jwtRules[].issuer.",),
    TokenFault.AUDIENCE: ("Compare the token's `aud` with jwtRules[].audiences.",),
    TokenFault.SIGNATURE: ("The token was changed, or signed with a key that is not in the issuer's key set.",),
    TokenFault.MULTIPLE: ("Let the client send one token, in one place.",),
    TokenFault.NO_KEY: ("The issuer's key set has no key of the token's kid and alg: it may be newer than what was fetched.",),
    TokenFault.KEYS_JSON: _KEYS,
    TokenFault.KEYS_ABSENT: _KEYS,
    TokenFault.KEYS_NO_LIST: _KEYS,
    TokenFault.KEYS_NONE_VALID: _KEYS,
    TokenFault.KEYS_NOT_FETCHED: _KEYS,
}
