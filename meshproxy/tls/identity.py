"""Room 2, TLS: the proxy's own certificate as it is handed around: made by ``agent``, kept by the ``Vault``."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Identity"]


class Identity(NamedTuple):
    """certificate: PEM chain, leaf first. key: PEM, not encrypted. roots: PEM, what to trust until the first ``Trust`` comes.
    issuer: as in ``Trust``. expires: Unix seconds. uri: the SPIFFE identity. The key is in no log, because it is in no repr.
    """

    certificate: bytes
    key: bytes
    roots: tuple[bytes, ...]
    issuer: str
    expires: float
    uri: str

    def __repr__(self) -> str:
        return f"Identity(uri={self.uri!r}, expires={self.expires!r})"
