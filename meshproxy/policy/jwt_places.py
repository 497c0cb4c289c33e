"""Room: policy. Where tokens stand in a request: headers, query parameters, cookies; finding them and taking them out.

In: the locations of all providers. Out: ``Places.extract``: every token that stands at any of them, after the headers that
only this proxy may write were taken out (semantics B5.8: whoever sends one made it up). Envoy's Extractor, but every value
of a repeated parameter or cookie counts, not the first alone: an app may read the other one.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from meshproxy.message.head import RequestHead, spellings
from meshproxy.model.security import JwtProvider

__all__ = ["COOKIE", "HEADER", "PARAM", "Found", "Place", "Places", "without_params"]

HEADER: Final = "header"
PARAM: Final = "query parameter"
COOKIE: Final = "cookie"

_BEARER = ("authorization", "Bearer ")
_ACCESS_TOKEN = "access_token"
_TOKEN_CHARACTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


class Place(NamedTuple):
    """``prefix``: what stands before a header's token, literally, its blank included."""

    kind: str
    name: bytes
    prefix: bytes = b""

    def __str__(self) -> str:
        return f"{self.kind} {self.name.decode()}"


Found = tuple[int, bytes]  # index of the place, token


class Places:
    """All locations of a set of providers, each once, in the order in which they are read: headers, parameters, cookies."""

    __slots__ = ("_cookies", "_headers", "_params", "all", "params", "written")

    def __init__(self, providers: tuple[JwtProvider, ...]) -> None:
        self.all: tuple[Place, ...] = tuple(
            sorted({place for provider in providers for place in places_of(provider)}, key=_reading_order)
        )
        self.written = frozenset(
            spelling for provider in providers for name in _written(provider) for spelling in spellings(name)
        )
        headers: dict[bytes, tuple[Found, ...]] = dict.fromkeys(self.written, ())
        for index, place in enumerate(self.all):
            if place.kind == HEADER and place.name not in self.written:
                headers[place.name] = (*headers.get(place.name, ()), (index, place.prefix))
        self._cookies = {place.name: index for index, place in enumerate(self.all) if place.kind == COOKIE}
        if self._cookies:
            headers.setdefault(b"cookie", ())
        self._headers = headers
        self._params = {place.name: index for index, place in enumerate(self.all) if place.kind == PARAM}
        self.params = frozenset(self._params)

    def of(self, provider: JwtProvider) -> frozenset[int]:
        """The places that a provider reads."""
        return frozenset(self.all.index(place) for place in places_of(provider))

    def extract(self, request: RequestHead) -> list[Found]:
        """Take out what only we write, then list the tokens."""
        found: list[Found] = []
        forged = cookies = False
        known = self._headers
        # One pass, one dict test per header. (benchmarks/micro_jwt.py "authn, cache hit")
        for name, value in request.headers:
            if name in known:
                if name in self.written:
                    forged = True
                    continue
                if name == b"cookie":
                    cookies = True
                for index, prefix in known[name]:
                    if not prefix:
                        found.append((index, value))
                    elif value.startswith(prefix):
                        rest = value[len(prefix) :]
                        found.append((index, rest if rest and rest[0] in _TOKEN_CHARACTERS else _token_in(value, len(prefix))))
                    elif (at := value.find(prefix)) >= 0:
                        found.append((index, _token_in(value, at + len(prefix))))
        if forged:
            request.headers[:] = [pair for pair in request.headers if pair[0] not in self.written]
        if self._params and b"?" in request.target:
            found += self._in_query(request.target)
        if cookies and self._cookies:
            found += self._in_cookies(request)
        return found

    def _in_query(self, target: bytes) -> list[Found]:
        query = target.partition(b"?")[2]
        found: list[Found] = []
        for part in query.split(b"&"):
            name, _, value = part.partition(b"=")
            index = self._params.get(unquote_to_bytes(name))
            if index is not None:
                found.append((index, unquote_to_bytes(value)))
        return found

    def _in_cookies(self, request: RequestHead) -> list[Found]:
        found: list[Found] = []
        for header, value in request.headers:
            if header == b"cookie":
                for part in value.split(b";"):
                    name, equals, content = part.strip(b" \t").partition(b"=")
                    index = self._cookies.get(name)
                    if index is not None and equals:
                        quoted = len(content) > 1 and content[:1] == content[-1:] == b'"'
                        found.append((index, content[1:-1] if quoted else content))
        return found


def _token_in(value: bytes, start: int) -> bytes:
    """From the first character that a token can have; the whole value when there is none (Envoy's extractJWT)."""
    for at in range(start, len(value)):
        if value[at] in _TOKEN_CHARACTERS:
            return value[at:]
    return value


def places_of(provider: JwtProvider) -> tuple[Place, ...]:
    """A provider's own locations; the two default ones when it names none (semantics B5.2)."""
    headers, params = provider.from_headers, provider.from_params
    if not (headers or params or provider.from_cookies):
        headers, params = (_BEARER,), (_ACCESS_TOKEN,)
    return (
        *(Place(HEADER, name.lower().encode(), prefix.encode()) for name, prefix in headers),
        *(Place(PARAM, name.encode()) for name in params),
        *(Place(COOKIE, name.encode()) for name in provider.from_cookies),
    )


def _reading_order(place: Place) -> tuple[int, bytes]:
    return (HEADER, PARAM, COOKIE).index(place.kind), place.name + place.prefix


def _written(provider: JwtProvider) -> tuple[bytes, ...]:
    names = [name for name, _ in provider.claim_headers]
    if provider.payload_header:
        names.append(provider.payload_header)
    return tuple(name.lower().encode() for name in names)


def without_params(target: bytes, names: frozenset[bytes]) -> bytes:
    """The target without these parameters; everything else stays as it was written."""
    path, mark, query = target.partition(b"?")
    if not mark:
        return target
    kept = [part for part in query.split(b"&") if unquote_to_bytes(part.partition(b"=")[0]) not in names]
    return path + b"?" + b"&".join(kept) if kept else path
