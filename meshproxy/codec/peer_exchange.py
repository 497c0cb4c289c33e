"""Room 3, codec: what two sidecars tell each other of themselves before plain bytes (ALPN ``istio-peer-exchange``). Sans-io.

In: our metadata; a connection's first plaintext. Out: the preamble to send; the peer's metadata and the bytes that follow it.
Source: Istio's metadata_exchange network filter: magic, length, a ``google.protobuf.Any`` with a ``Struct`` of
``x-envoy-peer-metadata`` (a Struct) and ``x-envoy-peer-metadata-id``. Bytes that do not begin by the magic are the app's own, as
there; what cannot be read inside the frame is left out, and its bytes are still taken away.
"""

from __future__ import annotations

from typing import Any

from meshproxy.model.cluster import Workload
from meshproxy.policy.peer_metadata import any_of_struct, struct_of_any, workload_of

__all__ = ["PEER_EXCHANGE", "PeerReader", "preamble"]

PEER_EXCHANGE = "istio-peer-exchange"
_MAGIC = (0x3D230467).to_bytes(4, "big")
_HEADER = 8
_LARGEST = 64 * 1024  # bytes of metadata; ours has some 400


def preamble(metadata: dict[str, Any], node: str) -> bytes:
    """What we say first."""
    told = any_of_struct({"x-envoy-peer-metadata": metadata, "x-envoy-peer-metadata-id": node})
    return _MAGIC + len(told).to_bytes(4, "big") + told


class PeerReader:
    """``workload``: what the peer said of itself, or None. ``broken``: it announced more than anybody has to say."""

    __slots__ = ("_held", "broken", "workload")

    def __init__(self) -> None:
        self._held = bytearray()
        self.workload: Workload | None = None
        self.broken = False

    def feed(self, data: bytes) -> bytes | None:
        """None: more is needed. Otherwise the bytes after the preamble; what comes later is not for this reader."""
        held = self._held
        held += data
        if not _MAGIC.startswith(held[: len(_MAGIC)]):
            return self._rest(0)
        if len(held) < _HEADER:
            return None
        end = _HEADER + int.from_bytes(held[4:_HEADER], "big")
        if end > _HEADER + _LARGEST:
            self.broken = True
            self._held = bytearray()
            return b""
        if len(held) < end:
            return None
        told = struct_of_any(bytes(held[_HEADER:end])).get("x-envoy-peer-metadata")
        self.workload = workload_of(told) if isinstance(told, dict) else None
        return self._rest(end)

    def _rest(self, start: int) -> bytes:
        rest = bytes(self._held[start:])
        self._held = bytearray()
        return rest
