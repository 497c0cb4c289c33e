"""Room: policy. Which chain an intercepted connection belongs to, by where it was meant to go (Envoy: filter chain matching).

In: (path, port, addresses, value) of every chain. Out: ``ChainIndex.find``, three dictionary look-ups at most where no blocks are
given. Raises ``Invalid`` for what cannot be matched, and for two chains of which nobody could say which one is meant.

The most specific one is taken: a port before none; within that an address before a block, the longest block first, before none.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Generic, TypeVar

from meshproxy.policy.invalid import Invalid
from meshproxy.policy.rbac_match import address_of

__all__ = ["ChainIndex"]

T = TypeVar("T")
Block = tuple[int, int]  # IP version, prefix length


class _Port(Generic[T]):
    """What is known of one port, or of any (0)."""

    __slots__ = ("addresses", "any", "blocks")

    def __init__(self) -> None:
        self.addresses: dict[str, T] = {}
        self.blocks: dict[Block, dict[int, T]] = {}
        self.any: T | None = None

    def find(self, address: str) -> T | None:
        found = self.addresses.get(address)
        if found is None and self.blocks:
            found = self._in_block(address)
        return found if found is not None else self.any

    def _in_block(self, text: str) -> T | None:
        address = ip_address(text)
        number, version, bits = int(address), address.version, address.max_prefixlen
        for (kind, length), networks in self.blocks.items():
            if kind == version:
                found = networks.get(number >> (bits - length))
                if found is not None:
                    return found
        return None

    def close(self) -> None:
        """Nothing more comes: the longest block is asked first."""
        self.blocks = dict(sorted(self.blocks.items(), key=lambda item: -item[0][1]))


@lru_cache(maxsize=16384)  # a configuration names the same thousands of addresses as the one before
def _parsed(text: str) -> tuple[str | int, Block | None]:
    """(address, None), or (the network's number, its block). Raises ValueError."""
    network = ip_network(text, strict=False)
    if network.prefixlen == network.max_prefixlen:
        return str(address_of(str(network.network_address))), None
    number = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
    return number, (network.version, network.prefixlen)


class ChainIndex(Generic[T]):
    """``chains``: (path of the chain, port or 0, addresses or (), what is found)."""

    __slots__ = ("_any", "_ports")

    def __init__(self, chains: Iterable[tuple[str, int, tuple[str, ...], T]] = ()) -> None:
        ports: dict[int, _Port[T]] = {}
        for path, port, addresses, value in chains:
            if not 0 <= port < 65536:
                raise Invalid(path + ".port", f"must be between 0 and 65535, not {port}")
            known = ports.setdefault(port, _Port())
            if not addresses:
                if known.any is not None:
                    raise Invalid(path + ".addresses", f"another chain has all of port {port or 'any'} already")
                known.any = value
            for index, text in enumerate(addresses):
                self._place(known, text, value, f"{path}.addresses[{index}]")
        for known in ports.values():
            known.close()
        self._any = ports.pop(0, None)
        self._ports = ports

    @staticmethod
    def _place(known: _Port[T], text: str, value: T, path: str) -> None:
        try:
            place, block = _parsed(text)
        except ValueError:
            raise Invalid(path, f'must be an address or a block such as "10.0.0.0/8", not "{text}"') from None
        if block is None:
            taken = known.addresses.setdefault(str(place), value)
        else:
            taken = known.blocks.setdefault(block, {}).setdefault(int(place), value)
        if taken is not value:
            raise Invalid(path, f"another chain of this port has {text} already")

    def find(self, address: str, port: int) -> T | None:
        """``address``: in ``ipaddress``'s own spelling; IPv4 as such."""
        known = self._ports.get(port)
        if known is not None:
            found = known.find(address)
            if found is not None:
                return found
        return self._any.find(address) if self._any is not None else None
