"""The base of every model struct, and its canonical bytes.

In: nothing. Out: ``Model`` (frozen, strict) and ``encode``/``decode``/``fingerprint``. The bytes of equal structs are equal,
so a fingerprint is a version.
"""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec

__all__ = ["Model", "decode", "encode", "fingerprint"]

M = TypeVar("M")


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A frozen value; unknown fields are errors; defaults are left out of the bytes."""


_encoder = msgspec.json.Encoder(order="sorted")


def encode(value: object) -> bytes:
    """Canonical JSON: sorted keys, defaults omitted, no white space."""
    return _encoder.encode(value)


def decode(data: bytes, type_: type[M]) -> M:
    """Strict decode. Raises ``msgspec.ValidationError`` whose message ends in the field's path."""
    return msgspec.json.decode(data, type=type_)


def fingerprint(data: bytes) -> str:
    """The version of a resource: 16 hex digits of the SHA-256 of its canonical bytes."""
    return hashlib.sha256(data).hexdigest()[:16]
