"""Fetching a key set over HTTP (room ``sources``): bounded in time, size and hops, and never from a forbidden address.

In: ``KeysAt``. Out: the key set's text, or ``FetchProblem`` with one line. The address is judged where the connection is made,
after DNS and for each redirect, and it is this very address that is connected to: a name that changes its mind gains nothing.
TLS is verified; once on https there is no way back to http. No proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from control.resources.values import parse_duration
from control.sources.addresses import forbidden
from control.world.security import KeysAt

__all__ = ["DEFAULT_TIMEOUT", "MAX_BYTES", "FetchProblem", "Fetcher", "public_keys"]

MAX_BYTES = 1 << 20
MAX_HOPS = 4  # requests for one document
DEFAULT_TIMEOUT = 5.0  # seconds, Istio's
DISCOVERY = "/.well-known/openid-configuration"
_SECRET_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth"))  # RFC 7518 6.2.2, 6.3.2; of an "oct" key k is the key
_HEADERS = [(b"accept", b"application/json"), (b"accept-encoding", b"identity"), (b"user-agent", b"mesh-control")]
_LIBRARY = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    httpx.InvalidURL,
    OSError,
    ValueError,
)


class FetchProblem(Exception):
    """Why there is no key set; one line, without anything that a server sent."""


class Fetcher:
    """``loopback``: whether fetching from this host's loopback is allowed. ``context``: for TLS; ``None``: the system's roots."""

    def __init__(self, *, loopback: bool, context: ssl.SSLContext | None = None) -> None:
        self._backend = _Guard(loopback)
        self._context = context

    async def fetch(self, keys: KeysAt) -> str:
        """The key set's text, made canonical. Raises ``FetchProblem``."""
        timeout = parse_duration(keys.timeout) if keys.timeout else 0.0
        try:
            async with asyncio.timeout(timeout or DEFAULT_TIMEOUT):
                return await self._fetch(keys)
        except TimeoutError:
            raise FetchProblem(f"no answer within {timeout or DEFAULT_TIMEOUT:g} s") from None
        except _LIBRARY as error:
            words = " ".join(str(error).split())[:200]
            raise FetchProblem(f"{type(error).__name__}{': ' if words else ''}{words}") from None

    async def _fetch(self, keys: KeysAt) -> str:
        uri = keys.uri
        if not uri:
            uri = await self._discover(keys.issuer)
        return public_keys(await self._get(uri))

    async def _discover(self, issuer: str) -> str:
        if not issuer.startswith(("https://", "http://")):
            raise FetchProblem("the rule has neither jwks nor jwksUri, and its issuer is no URL to ask for them")
        document = _json(await self._get(issuer.rstrip("/") + DISCOVERY))
        uri = document.get("jwks_uri") if isinstance(document, dict) else None
        if not isinstance(uri, str):
            raise FetchProblem(f"{DISCOVERY} names no jwks_uri")
        if issuer.startswith("https://") and not uri.startswith("https://"):
            raise FetchProblem("an https issuer may not send us to http")
        return uri

    async def _get(self, uri: str) -> bytes:
        """The body at ``uri``, through redirects."""
        if self._context is None:
            self._context = ssl.create_default_context()
        url = httpx.URL(uri)
        async with httpcore.AsyncConnectionPool(
            self._context, max_connections=1, max_keepalive_connections=0, network_backend=self._backend
        ) as pool:
            for _ in range(MAX_HOPS):
                if url.scheme not in ("http", "https") or not url.host or url.userinfo:
                    raise FetchProblem("only http:// and https:// URLs without user and password are fetched")
                at = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
                async with pool.stream("GET", at, headers=_HEADERS) as response:
                    if response.status in (301, 302, 303, 307, 308):
                        url = _redirected(url, response.headers)
                        continue
                    if response.status != 200:
                        raise FetchProblem(f"answered {response.status}")
                    return await _body(response)
        raise FetchProblem(f"more than {MAX_HOPS - 1} redirects")


def _redirected(url: httpx.URL, headers: Iterable[tuple[bytes, bytes]]) -> httpx.URL:
    location = next((value for name, value in headers if name.lower() == b"location"), None)
    if location is None:
        raise FetchProblem("a redirect without a location")
    target = url.join(location.decode("ascii", "replace"))
    if url.scheme == "https" and target.scheme != "https":
        raise FetchProblem("a redirect from https to http is not followed")
    return target


async def _body(response: httpcore.Response) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_stream():
        size += len(part)
        if size > MAX_BYTES:
            raise FetchProblem(f"is larger than {MAX_BYTES >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def public_keys(body: bytes) -> str:
    """A key set's canonical text: equal sets give equal text, and private parts that an issuer leaks are not passed on."""
    found = _json(body)
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise FetchProblem('is not a JSON Web Key Set: {"keys": [...]}')
    if not keys or not all(isinstance(key, dict) for key in keys):
        raise FetchProblem("is a JSON Web Key Set without keys")
    kept = [{name: value for name, value in key.items() if name not in _SECRET_MEMBERS} for key in keys]
    return json.dumps({"keys": kept}, sort_keys=True, separators=(",", ":"))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise FetchProblem("is not JSON") from None


class _Guard(httpcore.AsyncNetworkBackend):
    """Connects to addresses that it has judged itself, not to names."""

    def __init__(self, loopback: bool) -> None:
        self._loopback = loopback
        self._below = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise FetchProblem(f"{host}: no such host") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        refusals = {address: forbidden(address, loopback=self._loopback) for address in addresses}
        failure: Exception = FetchProblem(f"{host}: has no address")
        for address in addresses:
            if refusals[address]:
                failure = FetchProblem(f"{host} is {address}, {refusals[address]}: keys are never fetched from there")
                continue
            try:
                return await self._below.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure
