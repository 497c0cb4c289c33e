"""The files that ship for other tools (tools). In: their names. Out: their text, and where the mesh is filled in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

__all__ = ["dashboards", "datasource", "prometheus", "provider", "rules"]

_HERE = files("control.tools")
CONTROL = "127.0.0.1:15014"  # as the shipped file has it


def prometheus(control: str = CONTROL, kubernetes: bool = False) -> str:
    """Scrape configuration; ``control`` is the address of its :15014."""
    text = (_HERE / "prometheus" / ("kubernetes.yml" if kubernetes else "local.yml")).read_text()
    return text if kubernetes else text.replace(CONTROL, control)


def rules() -> str:
    return (_HERE / "prometheus" / "mesh.rules.yml").read_text()


def dashboards() -> Mapping[str, str]:
    """Grafana's, by file name."""
    found = (_HERE / "grafana").iterdir()
    return {one.name: one.read_text() for one in sorted(found, key=lambda one: one.name) if one.name.endswith(".json")}


def datasource(url: str) -> str:
    """Not the default one: a second default would keep Grafana from starting. The dashboards choose it by its type."""
    return (
        "apiVersion: 1\n"
        "datasources:\n"
        "- name: Mesh\n"
        "  uid: mesh\n"
        "  type: prometheus\n"
        "  access: proxy\n"
        f"  url: {url}\n"
        "  jsonData:\n"
        "    timeInterval: 15s  # how often Prometheus scrapes\n"
    )


def provider(path: str) -> str:
    """Where Grafana finds the dashboards."""
    quoted = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'apiVersion: 1\nproviders:\n- name: mesh\n  folder: Mesh\n  type: file\n  options:\n    path: "{quoted}"\n'
