"""Room: policy. What sidecars tell each other of themselves: ``x-envoy-peer-metadata`` and ``-id``, in Envoy's form.

In: our own ``Workload``; the header's bytes from a peer. Out: the headers to send; the peer's ``Workload``. The value is the
base64 of a ``google.protobuf.Struct``. Whether a peer is believed is the caller's judgement (only over the mesh's mutual TLS);
whatever it sends, nothing here raises or grows without bound.

Source: Istio's peer_metadata filter (MXMethod, MXPropagationMethod) and metadata_object.cc for the fields' names.
"""

from __future__ import annotations

import binascii
from typing import Any

from meshproxy.message.head import Headers
from meshproxy.model.cluster import Workload

__all__ = [
    "METADATA",
    "METADATA_ID",
    "OwnMetadata",
    "any_of_struct",
    "decode_struct",
    "encode_struct",
    "peer_workload",
    "struct_of_any",
    "workload_of",
]

METADATA = b"x-envoy-peer-metadata"
METADATA_ID = b"x-envoy-peer-metadata-id"

_LARGEST = 8192  # bytes of a header that is looked into; ours has some 400
_LONGEST = 253  # characters of one value, as of a Kubernetes name
_DEEPEST = 4
_KNOWN_PEERS = 1024  # headers whose meaning is kept; then it starts afresh

_FIELDS = {"NAME": "pod", "NAMESPACE": "namespace", "WORKLOAD_NAME": "workload", "CLUSTER_ID": "cluster"}
_LABELS = {
    "app": "app",
    "version": "version",
    "service.istio.io/canonical-name": "canonical_service",
    "service.istio.io/canonical-revision": "canonical_revision",
}

_known: dict[bytes, Workload | None] = {}  # a memo of a pure function


class OwnMetadata:
    """Ours, as it goes out. ``lines``: for a request's head on the wire; ``pairs``: for a response's headers. ``fields`` and
    ``node``: for connections of plain bytes.
    """

    __slots__ = ("_node", "_told", "fields", "lines", "pairs")

    def __init__(self, workload: Workload, node: str) -> None:
        """node: Envoy's node id, ``sidecar~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>``."""
        self._node = node.encode()
        self._told: Workload | None = None
        self.fields: dict[str, Any] = {}
        self.lines = b""
        self.pairs: Headers = []
        self.update(workload)

    @property
    def node(self) -> str:
        return self._node.decode()

    @property
    def workload(self) -> Workload:
        assert self._told is not None  # since ``__init__``
        return self._told

    def update(self, workload: Workload) -> None:
        """Control knows more of us than our flags do. Peers are told when something has changed."""
        if workload == self._told:
            return
        self._told = workload
        fields: dict[str, Any] = {name: getattr(workload, field) for name, field in _FIELDS.items()}
        fields["LABELS"] = {label: value for label, field in _LABELS.items() if (value := getattr(workload, field))}
        self.fields = {name: part for name, part in fields.items() if part}
        value = binascii.b2a_base64(encode_struct(self.fields), newline=False)
        self.pairs = [(METADATA, value), (METADATA_ID, self._node)]
        self.lines = b"".join(b"%b: %b\r\n" % pair for pair in self.pairs)


def peer_workload(value: bytes) -> Workload | None:
    """The workload that a header's value describes; None: it is no such value. Hot: once per request over mutual TLS.

    The same bytes give the same object, which telemetry counts on. (benchmarks/micro_path.py "mesh inbound")
    """
    try:
        return _known[value]
    except KeyError:
        pass
    if len(value) > _LARGEST:
        return None
    if len(_known) >= _KNOWN_PEERS:
        _known.clear()
    found = _known[value] = _workload(value)
    return found


def _workload(value: bytes) -> Workload | None:
    try:
        fields = decode_struct(binascii.a2b_base64(value + b"=" * (-len(value) % 4)))  # Envoy also reads it without padding
    except (binascii.Error, ValueError):
        return None
    return workload_of(fields)


def workload_of(fields: dict[str, Any]) -> Workload | None:
    """The workload that a peer's metadata describes; None: it does not say enough."""
    labels = fields.get("LABELS")
    named = {**_texts(fields, _FIELDS), **(_texts(labels, _LABELS) if isinstance(labels, dict) else {})}
    if not named.get("namespace"):
        return None
    named.setdefault("cluster", "")
    return Workload(**named)


def _texts(fields: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    return {
        field: value
        for name, field in names.items()
        if isinstance(value := fields.get(name), str) and len(value) <= _LONGEST and value.isprintable()
    }


# -- google.protobuf.Struct, as far as it is needed: strings and structs. (protobuf.dev/programming-guides/encoding)
#
# Struct { map<string, Value> fields = 1; }   an entry is { string key = 1; Value value = 2; }
# Value { null = 1 | number = 2 | string = 3 | bool = 4 | struct = 5 | list = 6 }


def encode_struct(fields: dict[str, Any]) -> bytes:
    """Values are strings or such dicts. Keys in order, so that equal structs are equal bytes."""
    out = b""
    for key in sorted(fields):
        value = fields[key]
        inner = _piece(3, value.encode()) if isinstance(value, str) else _piece(5, encode_struct(value))
        out += _piece(1, _piece(1, key.encode()) + _piece(2, inner))
    return out


_STRUCT = b"type.googleapis.com/google.protobuf.Struct"


def any_of_struct(fields: dict[str, Any]) -> bytes:
    """``google.protobuf.Any``: { string type_url = 1; bytes value = 2; }"""
    return _piece(1, _STRUCT) + _piece(2, encode_struct(fields))


def struct_of_any(data: bytes) -> dict[str, Any]:
    """Empty where it is none, or cannot be read."""
    try:
        parts = dict(_pieces(data))
        return decode_struct(parts.get(2, b"")) if parts.get(1) == _STRUCT else {}
    except ValueError:
        return {}


def _piece(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_struct(data: bytes, depth: int = _DEEPEST) -> dict[str, Any]:
    """Strings and structs of a Struct; values of other kinds are left out. Raises ValueError for what is none."""
    if not depth:
        raise ValueError("too deep")
    found: dict[str, Any] = {}
    for field, entry in _pieces(data):
        if field != 1:
            continue
        key, value = "", b""
        for part, content in _pieces(entry):
            if part == 1:
                key = content.decode()
            elif part == 2:
                value = content
        for kind, content in _pieces(value):
            if kind == 3:
                found[key] = content.decode()
            elif kind == 5:
                found[key] = decode_struct(content, depth - 1)
    return found


def _pieces(data: bytes) -> list[tuple[int, bytes]]:
    """(field number, content) of every length-delimited field; numbers are stepped over."""
    found = []
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        kind = tag & 7
        if kind == 2:
            size, at = _number(data, at)
            if size > len(data) - at:
                raise ValueError("cut short")
            found.append((tag >> 3, data[at : at + size]))
            at += size
        elif kind == 0:
            _, at = _number(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
            if at > len(data):
                raise ValueError("cut short")
        else:
            raise ValueError("no such wire type")
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise ValueError("cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("number too long")
