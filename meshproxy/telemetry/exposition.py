"""Telemetry room: families to text, in Prometheus' format 0.0.4 or OpenMetrics 1.0.0, whichever the scraper accepts.

In: families. Out: a content type and pieces of text. Written by hand because a scrape runs on the loop that carries traffic:
for 300 label sets prometheus_client takes 880 ms and 18 MiB more than this file's 15 ms; the pieces let requests go in between.
Its parser is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from meshproxy.model.report import BOUNDS
from meshproxy.telemetry.family import Family, Row

__all__ = ["OPENMETRICS", "TEXT", "exposition", "stats", "wants_openmetrics"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_PIECE = 64 * 1024
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(families: Iterable[Family], accept: str = "") -> tuple[str, Iterator[bytes]]:
    """(content type, body in pieces of some 64 KiB) for a scraper that sent this ``Accept`` header."""
    modern = wants_openmetrics(accept)
    return (OPENMETRICS if modern else TEXT), _pieces(_lines(families, modern))


def wants_openmetrics(accept: str) -> bool:
    """Only a scraper that names it, at version 1.0.0 or none, and not with q=0, gets OpenMetrics."""
    best = {"text": -1.0, "open": -1.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        options = dict(piece.partition("=")[::2] for piece in parameters)
        try:
            quality = float(options.get("q", "1"))
        except ValueError:
            quality = 0.0
        if kind == "application/openmetrics-text" and options.get("version", "1.0.0") in ("1.0.0", "0.0.1"):
            best["open"] = max(best["open"], quality)
        elif kind in ("text/plain", "text/*", "*/*"):
            best["text"] = max(best["text"], quality)
    return best["open"] > 0 and best["open"] >= best["text"]


def _pieces(lines: Iterable[str]) -> Iterator[bytes]:
    piece: list[str] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= _PIECE:
            yield "".join(piece).encode()
            piece.clear()
            size = 0
    if piece:
        yield "".join(piece).encode()


def _lines(families: Iterable[Family], modern: bool) -> Iterator[str]:
    for family in families:
        if not family.rows:
            continue
        name = family.name
        if family.kind == "counter":
            base = name.removesuffix("_total") if modern else name
            sample = base + "_total" if modern else name
        else:
            base = sample = name
        text = family.help.replace("\\", r"\\").replace("\n", r"\n")
        yield f"# HELP {base} {text.replace(chr(34), chr(92) + chr(34)) if modern else text}\n"
        yield f"# TYPE {base} {family.kind}\n"
        for row in family.rows:
            pairs = zip(family.labels, row.labels, strict=True)
            labels = ",".join([f'{key}="{value.translate(_ESCAPES)}"' for key, value in pairs])
            if row.histogram is None:
                yield f"{sample}{{{labels}}} {_number(row.value)}\n" if labels else f"{sample} {_number(row.value)}\n"
            else:
                yield _histogram(name, labels, row, modern)
    if modern:
        yield "# EOF\n"


_LE_TEXT = (*(f"{bound:g}" if bound < 1e5 else str(int(bound)) for bound in BOUNDS), "+Inf")
_LE_MODERN = (*(repr(bound) for bound in BOUNDS), "+Inf")  # OpenMetrics wants canonical floats: 1.0, not 1


def _histogram(name: str, labels: str, row: Row, modern: bool) -> str:
    assert row.histogram is not None
    counts = list(accumulate(row.histogram.counts))
    bounds = _LE_MODERN if modern else _LE_TEXT
    inside = f"{labels}," if labels else ""
    lines = [f'{name}_bucket{{{inside}le="{bound}"}} {count}\n' for bound, count in zip(bounds, counts, strict=True)]
    around = f"{{{labels}}}" if labels else ""
    return "".join(lines) + f"{name}_sum{around} {_number(row.histogram.sum)}\n{name}_count{around} {counts[-1]}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def stats(families: Iterable[Family]) -> list[tuple[str, float]]:
    """Everything that has an Envoy-like name of its own (``cluster.NAME.upstream_cx_active``), sorted; for ``/stats``.

    Istio's own counters are there under their metric name with labels, as Envoy shows them.
    """
    found: list[tuple[str, float]] = []
    for family in families:
        for row in family.rows:
            if family.stat:
                found.append((family.stat.format(*row.labels), row.value))
            elif row.histogram is None:
                labels = ",".join(f"{key}={value}" for key, value in zip(family.labels, row.labels, strict=True))
                found.append((f"{family.name}{{{labels}}}" if labels else family.name, row.value))
    return sorted(found)
