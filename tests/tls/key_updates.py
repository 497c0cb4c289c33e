"""Key updates made by hand (RFC 8446 sections 4.6.3 and 7.2): Python's ``ssl`` cannot ask for one, a hostile peer can for thousands."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

__all__ = ["ClientRecords"]

_UPDATE = bytes((24, 0, 0, 1, 1))  # update_requested


class ClientRecords:
    """What a client sends under its first application keys. ``secret``: CLIENT_TRAFFIC_SECRET_0 of a key log, AES-256-GCM's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._keys()

    def _derive(self, label: bytes, size: int) -> bytes:
        name = b"tls13 " + label
        info = struct.pack("!HB", size, len(name)) + name + b"\0"
        return HKDFExpand(hashes.SHA384(), size, info).derive(self._secret)

    def _keys(self) -> None:
        self._aead, self._iv, self._number = AESGCM(self._derive(b"key", 32)), self._derive(b"iv", 12), 0

    def _record(self, content: bytes, kind: int) -> bytes:
        inner = content + bytes((kind,))
        head = struct.pack("!BHH", 23, 0x0303, len(inner) + 16)
        nonce = bytes(a ^ b for a, b in zip(self._iv, self._number.to_bytes(12, "big"), strict=True))
        self._number += 1
        return head + self._aead.encrypt(nonce, inner, head)

    def data(self, content: bytes) -> bytes:
        return self._record(content, 23)

    def update(self) -> bytes:
        """A key update that asks for one in return; what follows is under the next keys."""
        record = self._record(_UPDATE, 22)
        self._secret = self._derive(b"traffic upd", 48)
        self._keys()
        return record
