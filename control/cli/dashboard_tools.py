"""``meshctl dashboard TOOL``: a tool that runs is opened; for one that does not, what to point it at the mesh is printed.

In: the tool, what was wanted of it. Out: the URL on stdout and a browser that opens it; or configuration on stdout, ready to be
redirected into a file, and what to do with it in its comments or on stderr; or files (``--export``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from control.cli.errors import CliError
from control.cli.found import TOOLS, Found, asked, find

if TYPE_CHECKING:
    from control.client.api import Api

__all__ = ["Wanted", "run"]

MONITOR_PORT = 15014  # control's own


class Wanted(NamedTuple):
    """The options of the command."""

    tool: str
    url: str = ""
    no_open: bool = False
    config: bool = False
    kubernetes: bool = False
    rules: bool = False
    export: str = ""


def run(wanted: Wanted, connect: Callable[[], Api], opens: Callable[[str], bool]) -> int:
    """``connect`` raises where there is no mesh; files that need none are had without."""
    name, title = wanted.tool, TOOLS[wanted.tool].title
    _check(wanted)
    if wanted.rules:
        from control.tools.files import rules

        print(rules(), end="")
        return 0
    if wanted.export:
        return _export(wanted, connect)
    if wanted.kubernetes:
        print(_prometheus(None, kubernetes=True), end="")
        return 0
    if wanted.url:
        found = asked(name, wanted.url)
        if found is None:
            raise CliError(f"--url: no {title} answers there")
        return _open(found, wanted, opens)
    api = connect()
    if wanted.config:
        print(_config(name, api), end="")
        return 0
    found = find(name, api, _say)
    if found is not None and (wanted.no_open or sys.stdout.isatty()):
        return _open(found, wanted, opens)
    if found is not None:  # into a file or another program: the configuration, whoever runs
        print(f"# {title} answers at {found.base}; this is what to point it at the mesh (--no-open prints its URL alone).")
    else:
        places = " or ".join(TOOLS[name].services)
        _say(f"no {title} was found (a Service {places}, or {TOOLS[name].usual}); --url says where it is")
        _say("what follows is what to point it at the mesh when it runs")
    print(_config(name, api), end="")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _check(wanted: Wanted) -> None:
    """Options that make no sense for the tool, or together."""
    given = [option for option in ("config", "kubernetes", "rules", "export") if getattr(wanted, option)]
    names = {"config": "--print", "kubernetes": "--kubernetes", "rules": "--rules", "export": "--export"}
    if wanted.tool != "prometheus" and (wanted.kubernetes or wanted.rules):
        raise CliError(f"{names['kubernetes' if wanted.kubernetes else 'rules']}: only with prometheus", code=2)
    if wanted.export and wanted.tool not in ("prometheus", "grafana"):
        raise CliError("--export: only with prometheus or grafana", code=2)
    if wanted.rules and (wanted.kubernetes or wanted.export):
        raise CliError("--rules prints them alone; --export writes them too", code=2)
    if wanted.url and given and not (wanted.tool == "grafana" and wanted.export):
        raise CliError(f"--url opens what runs there; it does not go with {names[given[0]]}", code=2)
    if wanted.url and not wanted.url.startswith(("http://", "https://")):
        raise CliError("--url: must be a URL such as http://127.0.0.1:9090", code=2)


def _open(found: Found, wanted: Wanted, opens: Callable[[str], bool]) -> int:
    print(found.url, flush=True)
    if found.hint:
        _say(found.hint)
    if not wanted.no_open and not opens(found.url):
        _say("no browser could be opened: open the URL above")
    return 0


def _config(name: str, api: Api) -> str:
    """What to point ``name`` at the mesh. Where it, or what it reads from, was found, that address stands in it."""
    if name == "prometheus":
        return _prometheus(api)
    if name == "grafana":
        return _grafana(_base("prometheus", api))
    if name == "jaeger":
        return _jaeger()
    return _kiali(_base("prometheus", api), _base("jaeger", api))


def _base(name: str, api: Api) -> str:
    found = find(name, api, lambda line: None)
    return found.base if found is not None else TOOLS[name].usual


def _prometheus(api: Api | None, kubernetes: bool = False) -> str:
    from control.tools.files import prometheus

    return prometheus(_monitor(api), kubernetes) if api is not None else prometheus(kubernetes=kubernetes)


def _monitor(api: Api) -> str:
    """Where control's metrics are: at its pod, where it is one, else at the API's own host."""
    from urllib.parse import urlsplit

    for pod in api.request("GET", "/api/v1/pods")["items"]:
        address = pod.get("status", {}).get("podIP")
        if address and (pod["metadata"].get("labels") or {}).get("app") == "istiod":
            return f"[{address}]:{MONITOR_PORT}" if ":" in address else f"{address}:{MONITOR_PORT}"
    host = urlsplit(api.target.server).hostname or "127.0.0.1"
    return f"[{host}]:{MONITOR_PORT}" if ":" in host else f"{host}:{MONITOR_PORT}"


def _grafana(prometheus: str) -> str:
    from control.tools.files import datasource

    return (
        "# A data source for Grafana (provisioning/datasources/mesh.yml): a Prometheus that scrapes the mesh as\n"
        "# `meshctl dashboard prometheus` says. The mesh's dashboards, with this file, ready to use:\n"
        "#   meshctl dashboard grafana --export DIR\n" + datasource(prometheus)
    )


def _jaeger() -> str:
    return (
        "# Sends the traces to Jaeger's OTLP/HTTP port instead of control's own store. Where there is a MeshConfig already, put\n"
        "# the two blocks into it; else `kubectl apply -f` this as it is. Jaeger's page is on :16686.\n"
        "apiVersion: v1\n"
        "kind: ConfigMap\n"
        "metadata: {name: istio, namespace: istio-system}\n"
        "data:\n"
        "  mesh: |\n"
        "    extensionProviders:\n"
        "    - name: jaeger\n"
        "      opentelemetry: {service: 127.0.0.1, port: 4318, http: {path: /v1/traces}}\n"
        "    defaultProviders:\n"
        "      tracing: [jaeger]\n"
    )


def _kiali(prometheus: str, jaeger: str) -> str:
    return (
        "# Kiali finds the metrics that it asks Prometheus for, under Istio's names. Everything else it reads from a Kubernetes\n"
        "# cluster, so it needs one: without a cluster use `meshctl dashboard`. In Kiali's configuration:\n"
        "external_services:\n"
        f"  prometheus: {{url: {prometheus}}}\n"
        f"  tracing: {{enabled: true, provider: jaeger, use_grpc: false, internal_url: {jaeger}}}\n"
    )


def _export(wanted: Wanted, connect: Callable[[], Api]) -> int:
    """Writes what the tool needs under a directory. Says on stderr how to use it, on stdout what was written."""
    from control.tools import files

    root = Path(wanted.export).absolute()
    if wanted.tool == "prometheus":
        text = _prometheus(None, kubernetes=True) if wanted.kubernetes else _prometheus(connect())
        written = {root / "prometheus.yml": text, root / "mesh.rules.yml": files.rules()}
        use = f"prometheus --config.file={root / 'prometheus.yml'} --storage.tsdb.path={root / 'data'}"
    else:
        provisioning, boards = root / "provisioning", root / "dashboards"
        source = wanted.url or _base("prometheus", connect())
        written = {
            provisioning / "datasources" / "mesh.yml": files.datasource(source),
            provisioning / "dashboards" / "mesh.yml": files.provider(str(boards)),
            **{boards / name: text for name, text in files.dashboards().items()},
        }
        use = f"grafana server cfg:default.paths.provisioning={provisioning}"
    _write(written)
    for path in written:
        print(path)
    _say(f"to use it: {use}")
    return 0


def _write(written: dict[Path, str]) -> None:
    """All or, where somebody's own file is in the way, none."""
    for path, text in written.items():
        if path.exists() and (not path.is_file() or _first(path.read_text(errors="replace")) != _first(text)):
            raise CliError(f"--export: {path} is there already and not from here: choose another directory")
    for path, text in written.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise CliError(f"--export: {path}: {error.strerror}") from None


def _first(text: str) -> str:
    """By what a file of ours is known: its first line that tells, in JSON the second."""
    lines = text.splitlines()[:2]
    return lines[-1] if lines and lines[0] == "{" else lines[0] if lines else ""
