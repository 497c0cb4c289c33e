"""Request bodies: bytes off the wire to plain JSON values, within limits, with duplicate fields noticed.

Room: control/serve/kube. In: a Starlette request. Out: ``Body`` (the value, and the paths given twice). Every refusal is a
one-line ``ApiError``; nothing a client sends here may raise anything else. Limits: 3 MiB as in Kubernetes, 100 levels deep.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from typing import Any, NamedTuple

import msgspec
from starlette.requests import ClientDisconnect, Request

from control.serve.kube import status, wire
from control.yamltext import documents

__all__ = ["LIMIT", "TOO_DEEP", "Body", "check_depth", "media_type", "read", "read_bytes"]

LIMIT = 3 * 1024 * 1024
_DEPTH = 100
TOO_DEEP = f"the object would be nested deeper than {_DEPTH} levels"
_JSON = ("application/json", "")
_YAML = ("application/yaml", "text/yaml", "application/x-yaml", "application/vnd.yaml")
_ACCEPTED = ("application/json", "application/yaml", wire.MEDIA_TYPE)


class Body(NamedTuple):
    """``duplicates``: field paths that were given more than once; the last one counts."""

    value: Any
    duplicates: tuple[str, ...] = ()


def media_type(request: Request) -> str:
    """The content type without parameters, in lower case; "" when there is none."""
    return str(request.headers.get("content-type", "")).split(";")[0].strip().lower()


async def read_bytes(request: Request) -> bytes:
    """The whole body. 413 beyond ``LIMIT``."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > LIMIT:
        raise status.too_large(LIMIT)
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LIMIT:
                raise status.too_large(LIMIT)
            parts.append(part)
    except ClientDisconnect:
        raise status.bad_request("the client closed the connection before the body was complete") from None
    return b"".join(parts)


async def read(request: Request, *, as_type: str | None = None, duplicates: bool = False) -> Body:
    """The body as a JSON value. ``as_type`` overrides the content type (patches are JSON under their own names).

    ``duplicates`` asks to look for fields given twice, which costs a slower parser.
    """
    kind = as_type if as_type is not None else media_type(request)
    if kind not in _JSON and kind not in _YAML and kind != wire.MEDIA_TYPE:
        raise status.unsupported_media(_ACCEPTED)
    raw = await read_bytes(request)
    if not raw.strip():
        return Body(None)
    if kind == wire.MEDIA_TYPE:
        return _protobuf(raw)
    if len(raw) > 65536:  # a large document must not hold up the watches
        return await asyncio.to_thread(_parse, raw, kind in _YAML, duplicates)
    return _parse(raw, kind in _YAML, duplicates)


def _protobuf(raw: bytes) -> Body:
    try:
        return Body(wire.decode(raw))
    except wire.WireError as error:
        raise status.bad_request(f"the body is not valid protobuf: {error}") from None


def _parse(raw: bytes, as_yaml: bool, duplicates: bool) -> Body:
    try:
        if as_yaml:
            found = _yaml(raw)
        elif duplicates:
            found = _json_noticing(raw)
        else:
            found = Body(msgspec.json.decode(raw))
        _plain(found.value)
    except RecursionError:
        raise status.bad_request(f"the body is nested deeper than {_DEPTH} levels") from None
    except (msgspec.DecodeError, ValueError) as error:
        form = "YAML" if as_yaml else "JSON"
        raise status.bad_request(f"the body is not valid {form}: {_one_line(error)}") from None
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _json_noticing(raw: bytes) -> Body:
    """JSON with the fields that stand twice in one object. Their full paths are found by walking what was parsed."""
    seen: dict[int, list[str]] = {}
    keep: list[dict[str, Any]] = []  # ids are only unique while the object lives

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            counts = Counter(key for key, _ in items)
            seen[id(made)] = sorted(key for key, count in counts.items() if count > 1)
            keep.append(made)
        return made

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not a JSON number")

    value = json.loads(raw.decode(), object_pairs_hook=pairs, parse_constant=refuse)
    return Body(value, tuple(_paths(value, seen, "")) if seen else ())


def _paths(value: Any, seen: dict[int, list[str]], at: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, dict):
        found += [f"{at}.{key}".lstrip(".") for key in seen.get(id(value), ())]
        for key, inner in value.items():
            found += _paths(inner, seen, f"{at}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _paths(inner, seen, f"{at}[{index}]")
    return found


def _yaml(raw: bytes) -> Body:
    given = [document for document in documents(raw, aliases=False) if document is not None]
    if len(given) > 1:
        raise ValueError("a request holds one object; send one document at a time")
    return Body(_text_keys(given[0]) if given else None)


def _text_keys(value: Any) -> Any:
    """Keys become text, as in JSON."""
    if isinstance(value, dict):
        return {_key(key): _text_keys(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_text_keys(inner) for inner in value]
    return value


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, (str, int, float)):
        return str(key)
    raise ValueError("a field name must be text")


def check_depth(value: Any) -> None:
    """Refuse (400) an object that is nested deeper than a body may be."""
    layer = [value]
    for _ in range(_DEPTH + 1):
        layer = [inner for item in layer for inner in _inner(item)]
        if not layer:
            return
    raise status.bad_request(TOO_DEEP)


def _inner(value: Any) -> list[Any]:
    found = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [item for item in found if isinstance(item, (dict, list))]


def _plain(value: Any) -> None:
    """Only JSON values, text that can be written as UTF-8, numbers that JSON can carry, and not too deep."""
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > _DEPTH:
            raise RecursionError
        if isinstance(item, dict):
            for key, inner in item.items():
                _writable(key)
                stack.append((inner, depth + 1))
        elif isinstance(item, list):
            stack.extend((inner, depth + 1) for inner in item)
        elif isinstance(item, str):
            _writable(item)
        elif isinstance(item, bool) or item is None:
            continue
        elif isinstance(item, int):
            if not -(2**63) <= item < 2**64:
                raise ValueError("a number is out of range")
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError("a number is out of range")
        else:
            raise ValueError(f"a value of type {type(item).__name__} is not JSON")


def _writable(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("text with an unpaired surrogate") from None
