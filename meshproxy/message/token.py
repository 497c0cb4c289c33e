"""A verified end-user token, as every room reads it. Made by the authn filter, kept on the request's head.

And every reason for which one is refused, in Envoy's words (jwt_verify_lib's Status), which are the body that the client gets.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

__all__ = ["Token", "TokenFault"]


class TokenFault(Enum):
    """Why a token does not verify (semantics B5.11). A missing one is no fault: Istio always allows that, policies may not."""

    NOT_YET_VALID = "Jwt not yet valid"
    EXPIRED = "Jwt is expired"
    BAD_FORMAT = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
    HEADER_BASE64 = "Jwt header is an invalid Base64url encoded"
    HEADER_JSON = "Jwt header is an invalid JSON"
    HEADER_ALG = "Jwt header [alg] field is required and must be a string"
    HEADER_ALG_UNKNOWN = "Jwt header [alg] is not supported"
    HEADER_KID = "Jwt header [kid] field is not a string"
    PAYLOAD_BASE64 = "Jwt payload is an invalid Base64url encoded"
    PAYLOAD_JSON = "Jwt payload is an invalid JSON"
    PAYLOAD_ISS = "Jwt payload [iss] field is not a string"
    PAYLOAD_SUB = "Jwt payload [sub] field is not a string"
    PAYLOAD_IAT = "Jwt payload [iat] field is not an integer"
    PAYLOAD_IAT_RANGE = "Jwt payload [iat] field is not a positive 64 bit integer"
    PAYLOAD_NBF = "Jwt payload [nbf] field is not an integer"
    PAYLOAD_NBF_RANGE = "Jwt payload [nbf] field is not a positive 64 bit integer"
    PAYLOAD_EXP = "Jwt payload [exp] field is not an integer"
    PAYLOAD_EXP_RANGE = "Jwt payload [exp] field is not a positive 64 bit integer"
    PAYLOAD_JTI = "Jwt payload [jti] field is not a string"
    PAYLOAD_AUD = "Jwt payload [aud] field is not a string or string list"
    SIGNATURE_BASE64 = "Jwt signature is an invalid Base64url encoded"
    SIGNATURE_LENGTH = "Jwt ED25519 signature is wrong length"
    UNKNOWN_ISSUER = "Jwt issuer is not configured"
    AUDIENCE = "Audiences in Jwt are not allowed"
    SIGNATURE = "Jwt verification fails"
    MULTIPLE = "Found multiple Jwt tokens"
    NO_KEY = "Jwks doesn't have key to match kid or alg from Jwt"
    KEYS_JSON = "Jwks is an invalid JSON"
    KEYS_ABSENT = "Jwks does not have [keys] field"
    KEYS_NO_LIST = "[keys] in Jwks is not an array"
    KEYS_NONE_VALID = "Jwks doesn't have any valid public key"
    KEYS_NOT_FETCHED = "Jwks remote fetch is failed"

    def __init__(self, words: str) -> None:
        self.body = words.encode()
        self.status = 403 if words.startswith("Audiences") else 401  # semantics B5.9
        self.detail = "jwt_authn_access_denied{" + words.replace(" ", "_") + "}"


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
