"""Room: policy. What a policy's strings are, compiled at config time: wildcards, path templates, addresses, ports.

In: the strings of ``model.security``. Out: tests over values (``strings`` over text or bytes, ``paths`` over bytes,
``addresses`` over an address's text). ``Invalid`` for what cannot be obeyed. Semantics: B6.5 and B6.7; Istio's ``matcher`` and
``security.ContainsPathTemplate``; Envoy's UriTemplate. A wildcard is only at one end; ``*`` alone is "there is a value".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import AnyStr

from meshproxy.policy.invalid import Invalid

__all__ = ["address_of", "addresses", "glob", "paths", "ports", "strings"]

_MEMO = 1024  # addresses whose verdict is remembered; clients choose them, hence the bound
_MEMO_KEY = 64


def strings(values: Iterable[AnyStr], path: str) -> Callable[[AnyStr], bool]:
    """A test for Istio's strings: exact, ``prefix*``, ``*suffix``, ``*``. An empty value never passes."""
    exact: set[AnyStr] = set()
    prefixes: list[AnyStr] = []
    suffixes: list[AnyStr] = []
    anything = False
    for index, value in enumerate(values):
        star = value[:0] + ("*" if isinstance(value, str) else b"*")
        if not value:
            raise Invalid(f"{path}[{index}]", "must not be empty")
        if value == star:
            anything = True
        elif value.startswith(star):
            suffixes.append(value[1:])
        elif value.endswith(star):
            prefixes.append(value[:-1])
        else:
            exact.add(value)
    if anything:
        return bool
    starts, ends = tuple(prefixes), tuple(suffixes)
    if not starts and not ends:
        if len(exact) == 1:
            (only,) = exact
            return lambda value: value == only
        return frozenset(exact).__contains__
    if not exact and not ends:
        return lambda value: value.startswith(starts)
    if not exact and not starts:
        return lambda value: value.endswith(ends)
    known = frozenset(exact)
    return lambda value: value in known or value.startswith(starts) or value.endswith(ends)


def glob(values: Iterable[str], path: str) -> Callable[[str], bool]:
    """A test for namespaces, whose wildcards may stand anywhere. An empty value never passes."""
    whole: list[str] = []
    inner: list[list[str]] = []
    for index, value in enumerate(values):
        if not value:
            raise Invalid(f"{path}[{index}]", "must not be empty")
        parts = value.split("*")
        if len(parts) == 1 or (len(parts) == 2 and "" in parts):
            whole.append(value)
        else:
            inner.append(parts)
    plain = strings(whole, path)
    if not inner:
        return plain
    return lambda value: bool(value) and (plain(value) or any(_in_order(parts, value) for parts in inner))


def _in_order(parts: list[str], value: str) -> bool:
    """Whether the literal parts stand in ``value`` in this order, the first at its start and the last at its end."""
    first, *middle, last = parts
    if not value.startswith(first) or not value.endswith(last) or len(value) < len(first) + len(last):
        return False
    at, end = len(first), len(value) - len(last)
    for part in middle:
        found = value.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def paths(values: Iterable[str], path: str) -> Callable[[bytes], bool]:
    """A test for a path without query: Istio's strings, and templates where ``{*}`` or ``{**}`` occurs."""
    plain: list[bytes] = []
    templates: list[Callable[[bytes], bool]] = []
    for index, value in enumerate(values):
        if not value:
            raise Invalid(f"{path}[{index}]", "must not be empty")
        if "{*}" in value or "{**}" in value:
            templates.append(_template(value, f"{path}[{index}]"))
        else:
            plain.append(value.encode())
    if not templates:
        return strings(plain, path)
    usual = strings(plain, path)
    if len(templates) == 1 and not plain:
        return templates[0]
    return lambda value: usual(value) or any(test(value) for test in templates)


def _template(text: str, path: str) -> Callable[[bytes], bool]:
    """``{*}``: one segment that is not empty; ``{**}``: any text, once, with literal segments at most after it."""
    if not text.startswith("/"):
        raise Invalid(path, f'a path template starts with "/", unlike "{text}"')
    segments = text[1:].split("/")
    wild = len(segments)
    for index, segment in enumerate(segments):
        if segment in ("{*}", "{**}"):
            if wild < index:
                raise Invalid(path, f'"{text}": no other operator may stand after {{**}}')
            if segment == "{**}":
                wild = index
        elif "{" in segment or "}" in segment or "*" in segment:
            raise Invalid(path, f'"{text}": {{*}} and {{**}} are segments of their own and go with no other wildcard')
        elif not segment and index < len(segments) - 1:
            raise Invalid(path, f'"{text}": a segment must not be empty')
    head = tuple(None if segment == "{*}" else segment.encode() for segment in segments[:wild])
    if wild == len(segments):
        return lambda value: _same(value.split(b"/")[1:], head) if value.startswith(b"/") else False
    tail = b"".join(b"/" + segment.encode() for segment in segments[wild + 1 :])
    size = len(head)

    def matches(value: bytes) -> bool:
        parts = value.split(b"/", size + 1)  # "", the head's segments, what {**} and the tail have to cover
        if len(parts) != size + 2 or parts[0]:
            return False
        return _same(parts[1:-1], head) and parts[-1].endswith(tail)

    return matches


def _same(parts: list[bytes], wanted: tuple[bytes | None, ...]) -> bool:
    if len(parts) != len(wanted):
        return False
    return all(part == want if want is not None else bool(part) for part, want in zip(parts, wanted, strict=True))


def ports(values: Iterable[str], path: str) -> frozenset[int]:
    found = set()
    for index, value in enumerate(values):
        if not (value.isascii() and value.isdigit() and len(value) <= 5 and 0 < int(value) < 65536):
            raise Invalid(f"{path}[{index}]", f'must be a port between 1 and 65535, not "{value}"')
        found.add(int(value))
    return frozenset(found)


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """The address that a text says, None if it says none. IPv4 in IPv6's clothes is IPv4; a zone is left out."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def addresses(values: Iterable[str], path: str) -> Callable[[str], bool]:
    """A test for an address's text: within any of the blocks; a bare address is a block of one."""
    blocks = []
    for index, value in enumerate(values):
        try:
            blocks.append(ip_network(value, strict=False))
        except ValueError:
            raise Invalid(f"{path}[{index}]", f'must be an address or a block such as "10.0.0.0/8", not "{value}"') from None
    known: dict[str, bool] = {}

    def within(text: str) -> bool:
        found = known.get(text)
        if found is None:
            address = address_of(text)
            found = address is not None and any(address in block for block in blocks)
            if len(text) <= _MEMO_KEY:
                if len(known) >= _MEMO:
                    known.clear()
                known[text] = found
        return found

    return within
