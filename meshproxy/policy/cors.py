"""Room: policy. Cross-origin resource sharing as Envoy's filter does it (semantics A1, Fetch standard).

In: ``model.route.Cors``, the request's head. Out: ``CompiledCors``: whether an origin is allowed, the answer to a preflight,
the headers added to a response. A preflight is OPTIONS with Origin and Access-Control-Request-Method.
"""

from __future__ import annotations

from meshproxy.message.head import Headers, RequestHead, first, replace
from meshproxy.message.verdict import Reply
from meshproxy.model.route import Cors
from meshproxy.policy.headers import check_value
from meshproxy.policy.matchers import compile_string
from meshproxy.policy.replies import plain_reply

__all__ = ["CompiledCors", "is_preflight"]


def is_preflight(request: RequestHead) -> bool:
    """Fetch standard, "CORS-preflight request"; the Origin header was seen by the caller."""
    return request.method == b"OPTIONS" and bool(first(request.headers, b"access-control-request-method"))


class CompiledCors:
    """One policy; header values are prepared bytes."""

    __slots__ = ("_any", "_preflight", "_response", "_tests", "forward_unmatched", "model")

    def __init__(self, model: Cors, path: str) -> None:
        self.model = model
        self.forward_unmatched = model.forward_unmatched_preflights
        self._tests = tuple(
            compile_string(origin, f"{path}.allow_origins[{index}]") for index, origin in enumerate(model.allow_origins)
        )
        self._any = any(test(b"*") for test in self._tests)
        credentials: Headers = []
        if model.allow_credentials:
            credentials = [(b"access-control-allow-credentials", b"true")]
        preflight = list(credentials)
        for name, values in (("methods", model.allow_methods), ("headers", model.allow_headers)):
            if values:
                joined = check_value(",".join(values), f"{path}.allow_{name}")
                preflight.append((b"access-control-allow-" + name.encode(), joined))
        if model.max_age is not None:
            preflight.append((b"access-control-max-age", b"%d" % model.max_age))
        response = list(credentials)
        if model.expose_headers:
            joined = check_value(",".join(model.expose_headers), f"{path}.expose_headers")
            response.append((b"access-control-expose-headers", joined))
        self._preflight = preflight
        self._response = response

    def allows(self, origin: bytes) -> bool:
        """An origin is allowed when a rule matches it, or matches ``*`` (Envoy's isOriginAllowed)."""
        return self._any or any(test(origin) for test in self._tests)

    def preflight(self, origin: bytes) -> Reply:
        """200 without a body, the origin echoed."""
        return plain_reply(200, b"", [(b"access-control-allow-origin", origin), *self._preflight], "cors_response")

    def refused_preflight(self) -> Reply:
        """``unmatchedPreflights: IGNORE``: answered here, without CORS headers, so that the browser refuses."""
        return plain_reply(200, b"", [], "cors_response")

    def decorate(self, headers: Headers, origin: bytes) -> None:
        """Add to an actual response; what the app said itself is overwritten."""
        replace(headers, b"access-control-allow-origin", origin)
        for name, value in self._response:
            replace(headers, name, value)
