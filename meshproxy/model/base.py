"""The base of every model struct, and its canonical bytes.

In: nothing. Out: ``Model`` (frozen, strict) and ``encode``/``decode``/``fingerprint``. The bytes of equal structs are equal,
so a fingerprint is a version.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TypeVar

import msgspec

__all__ = ["Model", "decode", "encode", "fingerprint"]

M = TypeVar("M")


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A frozen value; unknown fields are errors; defaults are left out of the bytes."""

    def __post_init__(self) -> None:
        """Make a value that equals its default be that default: msgspec leaves out by identity, and 0.0 is not always 0.0."""
        for name, default in _defaults(type(self)):
            value = getattr(self, name)
            if value is not default and value == default:
                msgspec.structs.force_setattr(self, name, default)


@cache
def _defaults(type_: type[Model]) -> tuple[tuple[str, object], ...]:
    """The defaults that an equal value might not be: neither None, a bool, a small int nor an empty tuple or string."""
    return tuple(
        (field.name, field.default)
        for field in msgspec.structs.fields(type_)
        if field.default is not msgspec.NODEFAULT and field.default not in (None, True, False, "", ())
    )


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
