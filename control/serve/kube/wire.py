"""Kubernetes' protobuf form of the core kinds, read into JSON: newer kubectl verbs such as ``create`` send nothing else.

Room: control/serve/kube; pure. In: the bytes of an ``application/vnd.kubernetes.protobuf`` body. Out: the object as JSON. Only
requests are read; answers stay JSON, which every client takes. Field numbers come from ``core_wire.json``, made from the
descriptors that Kubernetes publishes: type -> number -> ``name:kind``, kind being ``s`` text, ``y`` bytes, ``i`` integer, ``b``
boolean, ``[K`` repeated, ``{K`` map, else a type's name; a field without a name is inlined into its owner.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["MEDIA_TYPE", "WireError", "decode"]

Obj = dict[str, Any]
_Raw = int | bytes

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_DEPTH = 40

# Go writes a zero for every absent plain scalar; these are pointers there, so their zeros were meant.
_MEANT = frozenset(
    {
        "allocateLoadBalancerNodePorts", "allowPrivilegeEscalation", "automountServiceAccountToken", "enableServiceLinks",
        "gracePeriodSeconds", "immutable", "optional", "privileged", "readOnlyRootFilesystem", "ready", "replicas",
        "runAsGroup", "runAsNonRoot", "runAsUser", "serving", "shareProcessNamespace", "terminating",
        "terminationGracePeriodSeconds",
    }
)  # fmt: skip
# What may stand in an envelope; the type has the kind's name.
_KINDS = frozenset(
    {
        "ConfigMap", "DeleteOptions", "Deployment", "EndpointSlice", "Endpoints", "Event", "Namespace", "Pod", "Secret",
        "SelfSubjectAccessReview", "Service", "ServiceAccount",
    }
)  # fmt: skip


class WireError(ValueError):
    """The bytes are not the protobuf form of a kind that is known here; the message is one line."""


@cache
def _fields() -> dict[str, dict[int, tuple[str, str]]]:
    loaded = json.loads(files("control.serve.kube").joinpath("core_wire.json").read_text())
    split = {name: {int(n): text.partition(":") for n, text in fields.items()} for name, fields in loaded.items()}
    return {name: {n: (field, kind) for n, (field, _, kind) in fields.items()} for name, fields in split.items()}


def decode(raw: bytes) -> Obj:
    """The object inside the envelope, with its apiVersion and kind."""
    if not raw.startswith(_MAGIC):
        raise WireError("it does not begin as Kubernetes' protobuf does")
    api = kind = ""
    inner = b""
    for number, value in _walk(raw[len(_MAGIC) :]):
        if number == 1:
            meta = dict(_walk(_bytes(value)))
            api, kind = _text(meta.get(1, b"")), _text(meta.get(2, b""))
        elif number == 2:
            inner = _bytes(value)
    if kind not in _KINDS:
        raise WireError(f"the protobuf form of {kind[:60] or 'this kind'} is not known here: send JSON")
    return {"apiVersion": api, "kind": kind, **_message(inner, kind, 0)}


def _walk(data: bytes) -> Iterator[tuple[int, _Raw]]:
    at, size = 0, len(data)
    while at < size:
        tag, at = _varint(data, at)
        number, form = tag >> 3, tag & 7
        if form == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if form == 2:
            length, at = _varint(data, at)
        elif form in (1, 5):
            length = 8 if form == 1 else 4
        else:
            raise WireError(f"wire type {form} is not used by Kubernetes")
        if length > size - at:
            raise WireError("it ends in the middle of a field")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("it ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WireError("a number is too long")


def _bytes(value: _Raw) -> bytes:
    if isinstance(value, int):
        raise WireError("a number stands where text or an object belongs")
    return value


def _text(value: _Raw) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError:
        raise WireError("text is not UTF-8") from None


def _integer(value: _Raw) -> int:
    if not isinstance(value, int):
        raise WireError("text stands where a number belongs")
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _message(data: bytes, owner: str, depth: int) -> Obj:
    if depth > _DEPTH:
        raise WireError("it is nested too deep")
    known = _fields()[owner]
    made: Obj = {}
    for number, raw in _walk(data):
        found = known.get(number)
        if found is None:
            continue
        name, kind = found
        if not name:
            made.update(_message(_bytes(raw), kind, depth + 1))
        elif kind[0] == "[":
            made.setdefault(name, []).append(_value(raw, kind[1:], depth))
        elif kind[0] == "{":
            entry = dict(_walk(_bytes(raw)))
            made.setdefault(name, {})[_text(entry.get(1, b""))] = _value(entry.get(2, b""), kind[1:], depth)
        else:
            value = _value(raw, kind, depth)
            if value is not None and (value not in ("", 0, False) or name in _MEANT):
                made[name] = value
    return made


def _value(raw: _Raw, kind: str, depth: int) -> Any:
    """None: absent."""
    reader = _READERS.get(kind)
    return reader(raw) if reader is not None else _message(_bytes(raw), kind, depth + 1)


def _numbers(raw: _Raw) -> dict[int, _Raw]:
    return dict(_walk(_bytes(raw)))


def _time(raw: _Raw) -> str | None:
    parts = _numbers(raw)
    if not parts:
        return None
    seconds, nanos = _integer(parts.get(1, 0)), _integer(parts.get(2, 0))
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise WireError("a time is out of range") from None
    fraction = f".{nanos // 1000:06d}" if nanos else ""
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def _int_or_string(raw: _Raw) -> int | str:
    parts = _numbers(raw)
    return _text(parts.get(3, b"")) if _integer(parts.get(1, 0)) else _integer(parts.get(2, 0))


_READERS: dict[str, Callable[[_Raw], Any]] = {
    "s": _text,
    "y": lambda raw: base64.b64encode(_bytes(raw)).decode(),
    "i": _integer,
    "b": lambda raw: bool(_integer(raw)),
    "Time": _time,
    "MicroTime": _time,
    "Quantity": lambda raw: _text(_numbers(raw).get(1, b"")),
    "IntOrString": _int_or_string,
    "FieldsV1": lambda raw: None,
    "RawExtension": lambda raw: None,
}
