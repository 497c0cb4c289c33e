"""Prometheus' annotations: the agent shows the app's metrics together with the sidecar's. Quiet.

In: a pod's annotations. Out: they, pointing to the agent, and what they said before, for ISTIO_PROMETHEUS_ANNOTATIONS; and the
way back. Prometheus reads ``prometheus.io/port``, ``prometheus.io.port`` and ``prometheus_io_port`` alike, so all forms are
ours.
"""

from __future__ import annotations

import re

import msgspec

from injector.annotations import parse_bool

__all__ = ["point_to_agent", "restore"]

Annotations = dict[str, str]
_WORDS = {f"prometheus_io_{word}": word for word in ("scrape", "port", "path")}


def _found(annotations: Annotations) -> dict[str, str]:
    """Annotation -> scrape, port or path."""
    return {key: word for key in annotations if (word := _WORDS.get(re.sub(r"[^a-zA-Z0-9_]", "_", key)))}


def point_to_agent(annotations: Annotations, port: int) -> str:
    """Changes ``annotations``. Returns the variable's value, "" when the app has no metrics of its own to show."""
    ours = _found(annotations)
    told = {word: annotations[key] for key, word in sorted(ours.items())}
    try:
        wanted = parse_bool(told["scrape"]) if "scrape" in told else True
    except ValueError:
        wanted = True
    if not wanted or told.get("port") == str(port):  # nobody is to look, or the user points at the agent already
        return ""
    for key in ours:
        del annotations[key]
    annotations["prometheus.io/scrape"] = "true"
    annotations["prometheus.io/port"] = str(port)
    annotations["prometheus.io/path"] = "/stats/prometheus"
    return msgspec.json.encode(told, order="sorted").decode() if told else ""


def restore(annotations: Annotations, said: str | None, port: int) -> None:
    """Undo: changes ``annotations``; ``said`` is the variable's value, None when the sidecar has none."""
    if annotations.get("prometheus.io/port") != str(port) or annotations.get("prometheus.io/path") != "/stats/prometheus":
        return
    for key in _found(annotations):
        del annotations[key]
    try:
        told = msgspec.json.decode(said, type=dict[str, str]) if said else {}
    except msgspec.DecodeError:
        told = {}
    annotations.update({f"prometheus.io/{word}": value for word, value in told.items()})
