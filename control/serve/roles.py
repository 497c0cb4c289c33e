"""What a role may do on :15012 (room ``serve``). Pure.

In: a role, a method, a path. Out: "" or the reason for a refusal. ``view`` reads all but credentials, ``edit`` writes resources
and watches requests too (Kubernetes' roles of these names), ``admin`` also makes tokens, which let their holder be somebody, and
steers the certificate authority.
"""

from __future__ import annotations

from control.identity import Role

__all__ = ["refusal"]

_READS = frozenset(("GET", "HEAD"))
_REVIEWS = ("/apis/authorization.k8s.io/", "/apis/authentication.k8s.io/")  # questions about oneself, asked by POST
_TOKENS = "/mesh/v1/tokens"
_CA = "/mesh/v1/ca"
_PROXIES = "/mesh/v1/proxies/"
_TAPS = "/mesh/v1/taps"  # by POST; what headers hold is for admins, which the handler sees to
_DASHBOARD = "/mesh/v1/dashboard-code"  # a session of the same role


def refusal(role: Role, method: str, path: str) -> str:
    """Why ``role`` may not do this; "" when it may."""
    if role == "admin" or path.startswith(_REVIEWS) or path == _DASHBOARD:
        return ""
    if _under(path, _TOKENS):
        return "only admin may see and make tokens"
    # A question to a sidecar changes nothing; it is a POST so that a token in it is in no URL.
    asks = method == "POST" and path.startswith(_PROXIES) and path.endswith("/query")
    reads = method in _READS or asks
    if _under(path, _CA) and not reads:
        return "only admin may steer the certificate authority"
    if role == "edit":
        return ""
    if path == _TAPS:
        return "only edit and admin may watch requests"
    if not reads:
        return f"view may not {method}"
    if path.startswith("/api/v1/") and "secrets" in path.split("/")[3:6:2]:  # /api/v1/secrets, /api/v1/namespaces/NS/secrets
        return "view may not read secrets"
    return ""


def _under(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")
