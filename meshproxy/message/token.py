"""A verified end-user token, as every room reads it. Made by the authn filter, kept on the request's head."""

from __future__ import annotations

from typing import Any

__all__ = ["Token"]


class Token:
    """principal: ``iss/sub``, "" when either is missing. audiences: ``aud`` as a tuple. presenter: ``azp``, or "". claims: the
    payload, with the claims that are space-delimited lists already split. payload: the token's payload part as it came, unpadded.
    expires: Unix seconds, or 0.0 for a token without ``exp``.
    """

    __slots__ = ("audiences", "claims", "expires", "issuer", "payload", "presenter", "principal", "subject")

    def __init__(
        self,
        issuer: str,
        subject: str,
        claims: dict[str, Any],
        *,
        audiences: tuple[str, ...] = (),
        presenter: str = "",
        payload: bytes = b"",
        expires: float = 0.0,
    ) -> None:
        self.issuer = issuer
        self.subject = subject
        self.principal = f"{issuer}/{subject}" if issuer and subject else ""
        self.audiences = audiences
        self.presenter = presenter
        self.claims = claims
        self.payload = payload
        self.expires = expires
