"""``meshctl proxy-status`` and ``proxy-config``: what the sidecars were sent, and what they run.

In: a pod's name. Out: istioctl's columns, or the model's documents as JSON and YAML. A sidecar is asked through control's
stream, so nobody needs to reach its admin port.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, Namespace, Output, connect, examples

if TYPE_CHECKING:
    from control.client.api import Api

__all__ = ["ask", "bodies", "pod_name", "register"]

SHORT = {"cluster": "CDS", "listener": "LDS", "endpoints": "EDS", "route": "RDS"}
Pod = Annotated[str, typer.Argument(metavar="POD", help="POD, POD.NAMESPACE or NAMESPACE/POD")]


def register(app: typer.Typer) -> None:
    app.command("proxy-status", epilog=examples("meshctl proxy-status", "meshctl ps book-service -o json"))(proxy_status)
    app.command("ps", hidden=True)(proxy_status)
    group = typer.Typer(
        help="Show what a sidecar runs: listeners, routes, clusters, endpoints, certificates.", no_args_is_help=True
    )
    for name, verb in (
        ("listener", listener),
        ("route", route),
        ("cluster", cluster),
        ("endpoint", endpoint),
        ("secret", secret),
        ("bootstrap", bootstrap),
        ("all", everything),
    ):
        lines = (f"meshctl proxy-config {name} book-service", f"meshctl pc {name} book-service -o json")
        group.command(name, epilog=examples(*lines))(verb)
        if name not in ("all", "bootstrap"):
            group.command(f"{name}s", hidden=True)(verb)
    app.add_typer(group, name="proxy-config")
    app.add_typer(group, name="pc", hidden=True)


def proxy_status(
    pod: Annotated[str | None, typer.Argument(help="Only this one: POD, POD.NAMESPACE or NAMESPACE/POD.")] = None,
    namespace: Namespace = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show every connected sidecar and whether it runs what control wants it to."""
    from control.cli.out import choose, print_columns

    api = connect(kubeconfig, context)
    found = api.request("GET", "/mesh/v1/proxies")["proxies"]
    if pod:
        space, name = pod_name(pod, namespace or api.target.namespace)
        found = [one for one in found if (one["namespace"], one["name"]) == (space, name)]
        if not found:
            raise CliError(f"no sidecar {space}/{name} is connected; `meshctl proxy-status` lists those that are")
    elif namespace:
        found = [one for one in found if one["namespace"] == namespace]

    def table() -> None:
        rows = [
            [
                f"{one['name']}.{one['namespace']}",
                *(one["kinds"].get(kind, {}).get("status", "NOT SENT") for kind in SHORT),
                one["status"],
                one["version"] or "-",
            ]
            for one in found
        ]
        print_columns(["NAME", *SHORT.values(), "STATUS", "VERSION"], rows)
        for one in found:
            for line in [*([one["problem"]] if one["problem"] else []), *(nack["error"] for nack in one["lastNack"])]:
                print(f"{one['name']}.{one['namespace']}: {line}")
        # of resources, so that sidecars which share them say the same
        for line in dict.fromkeys(problem for one in found for problem in one.get("problems", ())):
            print(f"not done as written: {line}")

    choose(output, found, table)
    return 0


def pod_name(word: str, namespace: str) -> tuple[str, str]:
    """(namespace, pod) of ``pod``, ``pod.namespace`` (istioctl) and ``namespace/pod`` (ours)."""
    word = word.removeprefix("pod/")
    if "/" in word:
        space, _, name = word.partition("/")
        return space, name
    name, dot, space = word.rpartition(".")
    return (space, name) if dot else (namespace, word)


def ask(api: Api, pod: str, namespace: str | None, verb: str) -> Any:
    """The sidecar's own answer (``dump``, ``clusters``). Raises ``CliError`` when it is not connected."""
    from control.client.api import ApiError

    space, name = pod_name(pod, namespace or api.target.namespace)
    try:
        return api.request("GET", f"/mesh/v1/proxies/{space}/{name}/query", params={"verb": verb})
    except ApiError as refused:
        if refused.code == 404:
            raise CliError(f"no sidecar {space}/{name} is connected; `meshctl proxy-status` lists those that are") from None
        raise


def bodies(dump: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The resources of one kind, by name."""
    found = [one.get("body", one) for one in dump.get("resources", ()) if one.get("kind") == kind]
    return sorted(found, key=lambda body: str(body.get("name", "")))


def _found(api: Api, kind: str, pod: str, namespace: str | None, dump: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """What a table shows: the model's documents, or for endpoints the clusters with their live state."""
    if kind == "endpoints":
        return sorted(ask(api, pod, namespace, "clusters"), key=lambda one: str(one["name"]))
    return bodies(dump if dump is not None else ask(api, pod, namespace, "dump"), kind)


def _show(
    kind: str, pod: str, namespace: str | None, output: str, kubeconfig: str | None, context: str | None, **keep: Any
) -> int:
    from control.cli.out import choose, print_columns

    found = _found(connect(kubeconfig, context), kind, pod, namespace)
    header, rows_of = _TABLES[kind]
    rows = [row for body in found for row in rows_of(body)]
    for column, wanted in keep.items():
        if wanted:
            at = header.index(column.upper().replace("_", " "))
            rows = [row for row in rows if str(wanted) in row[at]]
    choose(output, found, lambda: print_columns(header, rows))
    return 0


def _listener_rows(body: dict[str, Any]) -> list[list[str]]:
    """The listener itself, then each chain of what is intercepted, as the addresses and ports that it is for."""
    target = f"Route: {body.get('route', '')}" if body.get("route") else "-"
    if body["direction"] == "outbound":
        ports = ", ".join(str(port) for port in body.get("route_ports", ()))
        target = f"Routes: {ports}; else {body.get('default_policy', 'ALLOW_ANY')}"
    rows = [[body["name"], body.get("bind") or "(own)", str(body["port"]), body["direction"], target]]
    for server in body.get("tls", ()):
        names = ", ".join(server.get("hosts", ("*",)))
        inside = _bytes(server["tcp"]) if server.get("tcp") else f"Route: {server.get('route', '')}"
        rows.append([f"{body['name']} TLS", names, str(body["port"]), server.get("mode", "SIMPLE"), inside])
    for chain in body.get("chains", ()):
        places = chain.get("addresses", ())
        shown = ", ".join(places[:2]) + (f" + {len(places) - 2} more" if len(places) > 2 else "")
        if chain.get("by_name"):
            shown = f"CONNECT {chain['hosts'][0]}" if chain.get("hosts") else "CONNECT"
        parts = [f"Route: {chain['route']}"] if chain.get("route") else []
        parts += [_bytes(chain["tcp"])] if chain.get("tcp") else []
        port = str(chain["port"]) if chain.get("port") else "any"
        rows.append([chain["name"], shown or "any", port, chain.get("protocol", "AUTO"), "; ".join(parts) or "-"])
    return rows


def _bytes(routes: Sequence[Mapping[str, Any]]) -> str:
    """Where bytes go: ``Cluster: a; SNI: b.example Cluster: c``."""
    said = []
    for route in routes:
        only = [f"SNI: {', '.join(route['sni'])}"] if route.get("sni") else []
        only += [f"To: {', '.join(route['addresses'])}"] if route.get("addresses") else []
        clusters = route["clusters"]
        named = [f"{one['cluster']} ({one.get('weight', 1)})" if len(clusters) > 1 else str(one["cluster"]) for one in clusters]
        said.append(" ".join([*only, f"Cluster: {', '.join(named)}"]))
    return "; ".join(said)


def _route_rows(body: dict[str, Any]) -> list[list[str]]:
    rows = []
    for host in body["virtual_hosts"]:
        names = sorted(host["domains"], key=lambda name: (len(name), name))
        domains = ", ".join(names[:2]) + (f" + {len(names) - 2} more" if len(names) > 2 else "")
        for route in host["routes"]:
            how = [_match(route.get("match") or {}), _action(route["action"]), route.get("source", "")]
            rows.append([body["name"], host["name"], domains, *how])
    return rows


def _match(match: dict[str, Any]) -> str:
    path = match.get("path")
    said = [f"{path['value']}{'*' if path['kind'] == 'prefix' else ''}"] if path else ["/*"]
    said += [f"{name}" for name in ("method", "scheme", "authority") if name in match]
    said += [one["name"] for part in ("headers", "query") for one in match.get(part, ())]
    return " ".join(said)


def _action(action: dict[str, Any]) -> str:
    if action["type"] != "forward":
        return f"{action['type']} {action.get('code', action.get('status', ''))}".strip()
    clusters = action["clusters"]
    if len(clusters) == 1:
        return str(clusters[0]["cluster"])
    return ", ".join(f"{one['cluster']} ({one.get('weight', 1)})" for one in clusters)


def _cluster_rows(body: dict[str, Any]) -> list[list[str]]:
    parts = body["name"].split("|")
    direction, port, subset, fqdn = parts if len(parts) == 4 else ("-", "-", "", body["name"])
    host = fqdn or (body.get("service") or {}).get("host", "-")
    return [[host, port, subset or "-", direction, body.get("type", "EDS"), body.get("source") or "-"]]


def _endpoint_rows(body: dict[str, Any]) -> list[list[str]]:
    rows = []
    for one in body["endpoints"]:
        ejected = one.get("ejected_for", 0)
        outlier = f"FAILED ({ejected:.0f}s)" if ejected else "OK"
        asked = f"{one['rq_total']} ({one['rq_error']} failed)"
        rows.append([one["address"], one["health"].upper(), outlier, asked, one["pod"] or "-", body["name"]])
    return rows


_TABLES: dict[str, Any] = {
    "listener": (["NAME", "ADDRESS", "PORT", "DIRECTION", "DESTINATION"], _listener_rows),
    "route": (["NAME", "VHOST NAME", "DOMAINS", "MATCH", "DESTINATION", "VIRTUAL SERVICE"], _route_rows),
    "cluster": (["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"], _cluster_rows),
    "endpoints": (["ENDPOINT", "STATUS", "OUTLIER CHECK", "REQUESTS", "POD", "CLUSTER"], _endpoint_rows),
}


def listener(
    pod: Pod,
    namespace: Namespace = None,
    port: Annotated[int | None, typer.Option("--port", help="Only this port.")] = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Where the sidecar accepts."""
    return _show("listener", pod, namespace, output, kubeconfig, context, port=port)


def route(
    pod: Pod,
    namespace: Namespace = None,
    name: Annotated[str | None, typer.Option("--name", help="Only this route configuration, such as 8080.")] = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """By which rules requests are routed."""
    return _show("route", pod, namespace, output, kubeconfig, context, name=name)


def cluster(
    pod: Pod,
    namespace: Namespace = None,
    fqdn: Annotated[str | None, typer.Option("--fqdn", help="Only services with this in their name.")] = None,
    subset: Annotated[str | None, typer.Option("--subset", help="Only this subset.")] = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Which clusters there are."""
    return _show("cluster", pod, namespace, output, kubeconfig, context, service_fqdn=fqdn, subset=subset)


def endpoint(
    pod: Pod,
    namespace: Namespace = None,
    name: Annotated[str | None, typer.Option("--cluster", help="Only clusters with this in their name.")] = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """The endpoints of every cluster and their state."""
    return _show("endpoints", pod, namespace, output, kubeconfig, context, cluster=name)


def secret(
    pod: Pod,
    namespace: Namespace = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Which certificates the sidecar has, and until when; never a key."""
    from control.cli.out import choose, print_columns

    found = ask(connect(kubeconfig, context), pod, namespace, "secrets")
    choose(output, found, lambda: print_columns(_SECRETS, [_secret_row(one) for one in found]))
    return 0


_SECRETS = ("RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE")
_POLICIES = ("POLICY", "KIND", "RULES")


def _policy_rows(security: Mapping[str, Any]) -> list[list[str]]:
    """Tokens and rules in force; ``meshctl x authz check`` tells more."""
    rows = [[one["source"], "issuer", one["issuer"]] for one in security.get("jwt", ())]
    for one in security.get("policies", ()):
        rows.append([f"AuthorizationPolicy {one['name']}", one.get("action", "ALLOW"), str(len(one.get("rules", ())))])
    return rows


def _secret_row(one: dict[str, Any]) -> list[str]:
    cells = (one["name"], one["type"], one["status"], one["valid"], one["serial"], one["notAfter"], one["notBefore"])
    return [str(cell).lower() if isinstance(cell, bool) else str(cell or "-") for cell in cells]


def bootstrap(
    pod: Pod,
    namespace: Namespace = None,
    output: Output = "yaml",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """What the sidecar was started with."""
    from control.cli.out import as_yaml, choose

    found = ask(connect(kubeconfig, context), pod, namespace, "dump").get("bootstrap") or {}
    choose(output, found, lambda: print(as_yaml(found)))
    return 0


def everything(
    pod: Pod,
    namespace: Namespace = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """All of it, one table after the other."""
    from control.cli.out import choose, print_columns

    api = connect(kubeconfig, context)
    dump = ask(api, pod, namespace, "dump")

    def tables() -> None:
        for number, (kind, (header, rows_of)) in enumerate(_TABLES.items()):
            if number:
                print()
            print_columns(header, [row for body in _found(api, kind, pod, namespace, dump) for row in rows_of(body)])
        print()
        print_columns(_SECRETS, [_secret_row(one) for one in ask(api, pod, namespace, "secrets")])
        print()
        security = next(iter(bodies(dump, "security")), {})
        print_columns(_POLICIES, [*_policy_rows(security)] or [["(none)", "-", "-"]])

    choose(output, dump, tables)
    return 0
