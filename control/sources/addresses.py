"""Where control may fetch from on a user's behalf (room ``sources``): not from places that answer to whoever stands there.

In: an address that a name resolved to. Out: why it may not be connected to, or "". Private ranges are allowed, as in Istio: a
company's issuer lives there. An address inside another one (mapped, 6to4, NAT64, Teredo) is judged as well.
"""

from __future__ import annotations

import ipaddress

__all__ = ["forbidden"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Metadata services outside link-local space: AWS (IPv6), Google (IPv6), Alibaba, Oracle, Azure.
_METADATA = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"))
)
# Prefixes whose last 32 bits are an IPv4 address: IPv4-compatible (RFC 4291 section 2.5.5.1), NAT64 (RFC 6052, RFC 8215).
_WRAPPED = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")))
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def forbidden(address: str, *, loopback: bool) -> str:
    """``loopback``: the mesh itself lives there."""
    try:
        outer = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "no IP address"
    return next((why for ip in (outer, *_inside(outer)) if (why := _why(ip, loopback))), "")


def _why(ip: Address, loopback: bool) -> str:
    if ip in _METADATA:
        return "a cloud's metadata service"
    if ip.is_link_local:
        return "a link-local address"
    if ip.is_loopback:
        return "" if loopback else "a loopback address, and the mesh is not on loopback"
    if ip.is_unspecified or ip.is_multicast or ip == _BROADCAST or (ip.version == 4 and ip in _THIS_NETWORK):
        return "no address of a host"
    return ""


def _inside(ip: Address) -> tuple[Address, ...]:
    if isinstance(ip, ipaddress.IPv4Address):
        return ()
    found: list[Address | None] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if any(ip in prefix for prefix in _WRAPPED) and int(ip) > 1:  # "::" and "::1" are what they are
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return tuple(one for one in found if one is not None)
