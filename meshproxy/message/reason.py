"""Every early end of a request, by name: status, response flag, detail and body (Envoy: response flags, local replies).

The table is the only place where these are written; replies, metrics, access log and docs read it.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Reason", "flag_rank", "reset_body"]

_RESET = "upstream connect error or disconnect/reset before headers. "


class Reason(Enum):
    """``status`` 0: the client is gone, nothing can be said. ``reset`` is Envoy's reset reason, for retry and body.

    ``close``: the downstream connection closes after the reply.
    """

    #                     status flag  detail                                       body / reset reason           close
    NO_ROUTE = (404, "NR", "route_not_found", "", "", False)
    NO_CLUSTER = (503, "NC", "cluster_not_found", "", "", False)
    NO_HEALTHY_UPSTREAM = (503, "UH", "no_healthy_upstream", "no healthy upstream", "", False)
    OVERFLOW = (503, "UO", "upstream_reset_before_response_started{overflow}", "", "overflow", False)
    CONNECT_FAILURE = (
        503,
        "UF",
        "upstream_reset_before_response_started{remote_connection_failure}",
        "",
        "remote connection failure",
        False,
    )
    CONNECT_TIMEOUT = (
        503,
        "UF",
        "upstream_reset_before_response_started{connection_timeout}",
        "",
        "connection timeout",
        False,
    )
    UPSTREAM_TERMINATION = (
        503,
        "UC",
        "upstream_reset_before_response_started{connection_termination}",
        "",
        "connection termination",
        False,
    )
    UPSTREAM_REMOTE_RESET = (
        503,
        "UR",
        "upstream_reset_before_response_started{remote_reset}",
        "",
        "remote reset",
        False,
    )
    UPSTREAM_PROTOCOL_ERROR = (
        502,
        "UPE",
        "upstream_reset_before_response_started{protocol_error}",
        "",
        "protocol error",
        False,
    )
    UPSTREAM_HEADERS_TOO_LARGE = (
        503,
        "UPE",
        "upstream_reset_before_response_started{response_headers_too_large}",
        "",
        "protocol error",
        False,
    )
    UPSTREAM_TIMEOUT = (504, "UT", "response_timeout", "upstream request timeout", "", False)
    PER_TRY_TIMEOUT = (504, "UT", "upstream_per_try_timeout", "upstream request timeout", "", False)
    RETRY_EXHAUSTED = (503, "URX", "via_upstream", "", "", False)  # an added flag; never a reply of its own
    LOCAL_RESET = (503, "LR", "local_reset", "", "local reset", False)
    FAULT_ABORT = (503, "FI", "fault_filter_abort", "fault filter abort", "", False)
    FAULT_DELAY = (0, "DI", "", "", "", False)  # an added flag
    TOKEN_REFUSED = (401, "", "jwt_authn_access_denied", "", "", False)  # body and detail name the token.TokenFault
    TOKEN_AUDIENCE = (403, "", "jwt_authn_access_denied", "", "", False)
    RBAC_DENIED = (403, "", "rbac_access_denied_matched_policy[none]", "RBAC: access denied", "", False)
    EXT_AUTHZ_DENIED = (403, "UAEX", "ext_authz_denied", "", "", False)
    EXT_AUTHZ_ERROR = (403, "UAEX", "ext_authz_error", "", "", False)  # no answer; the status is the provider's
    RATE_LIMITED = (429, "RL", "local_rate_limited", "local_rate_limited", "", False)
    EGRESS_BLOCKED = (502, "", "direct_response", "", "", False)  # REGISTRY_ONLY, route block_all
    EGRESS_REFUSED = (403, "", "egress_refused", "", "", False)  # own ports and loops, foreign callers of outbound
    MISDIRECTED = (421, "", "misdirected_request", "Misdirected Request", "", False)
    LOOP_DETECTED = (508, "", "loop_detected", "", "", True)
    DOWNSTREAM_GONE = (0, "DC", "downstream_remote_disconnect", "", "", True)
    BAD_REQUEST = (400, "DPE", "http1.codec_error", "Bad Request", "", True)
    HEADERS_TOO_LARGE = (431, "DPE", "request_headers_too_large", "Request Header Fields Too Large", "", True)
    NOT_IMPLEMENTED = (501, "DPE", "http1.invalid_transfer_encoding", "Not Implemented", "", True)
    VERSION_NOT_SUPPORTED = (505, "DPE", "http1.version_not_supported", "HTTP Version Not Supported", "", True)
    UPGRADE_REFUSED = (403, "", "upgrade_failed", "", "", False)
    STREAM_IDLE_TIMEOUT = (408, "SI", "stream_idle_timeout", "stream timeout", "", True)
    REQUEST_TIMEOUT = (408, "DPE", "request_header_timeout", "Request Timeout", "", True)
    NO_CONFIG = (503, "NC", "no_configuration", "no configuration yet", "", False)
    OVERLOAD = (503, "OM", "overload", "envoy overloaded", "", True)
    DRAINING = (503, "OM", "draining", "", "", True)
    BUG = (500, "LR", "internal_error", "internal error", "", True)

    def __init__(self, status: int, flag: str, detail: str, body: str, reset: str, close: bool) -> None:
        self.status = status
        self.flag = flag
        self.detail = detail
        self.reset = reset
        self.close = close
        self.body = (_RESET + "reset reason: " + reset if reset else body).encode()


# Where several flags are written, Envoy's order (StreamInfo::ResponseFlagUtils): what happened, then URX.
_FLAG_ORDER = (
    *("UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL"),
    *("UAEX", "DC", "URX", "SI", "DPE", "UPE", "NC", "OM"),
)


def flag_rank(reason: Reason) -> int:
    """Sorts reasons by their flag; those without one come first."""
    return _FLAG_ORDER.index(reason.flag) if reason.flag else -1


def reset_body(reason: Reason, transport_failure: str = "", retried: bool = False) -> bytes:
    """The body of an upstream reset reply, Envoy's words.

    transport_failure: "delayed connect error: Connection refused"; retried: at least one retry was made.
    """
    if not reason.reset:
        return reason.body
    if retried:
        text = f"{_RESET}retried and the latest reset reason: {reason.reset}"
    else:
        text = f"{_RESET}reset reason: {reason.reset}"
    if transport_failure:
        text += f", transport failure reason: {transport_failure}"
    return text.encode()
