"""``meshctl x authz check POD``: what a workload demands of its callers: mutual TLS per listener, and the policies in force.

In: a pod's name. Out: two tables, of what the sidecar really runs: istioctl's of the article's days (LISTENER, HTTP ROUTE, ALPN,
mTLS (MODE), AuthZ (RULES)) and today's (ACTION, AuthorizationPolicy, RULES); or JSON and YAML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from control.cli.options import Context, Kubeconfig, Namespace, Output, connect, examples
from control.cli.proxies import ask, bodies, pod_name

__all__ = ["facts", "register_experimental"]

# What a sidecar's inbound listener answers to mutual TLS of the mesh; HTTP/2's names join when it lands.
_ALPN = "istio,istio-http/1.0,istio-http/1.1"


def register(app: typer.Typer) -> None:
    """Nothing outside ``experimental``."""


def register_experimental(app: typer.Typer) -> None:
    group = typer.Typer(help="What authorisation a workload has in force.", no_args_is_help=True)
    group.command("check", epilog=examples("meshctl x authz check book-service", "meshctl x authz check book-service -o json"))(
        check
    )
    app.add_typer(group, name="authz")


def check(
    pod: Annotated[str, typer.Argument(metavar="POD", help="POD, POD.NAMESPACE or NAMESPACE/POD")],
    every: Annotated[bool, typer.Option("-a", "--all", help="Outbound listeners too.")] = False,
    namespace: Namespace = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show which mutual TLS and which policies a sidecar has in force."""
    from control.cli.out import choose, print_columns

    api = connect(kubeconfig, context)
    space, name = pod_name(pod, namespace or api.target.namespace)
    told = facts(f"{name}.{space}", ask(api, pod, namespace, "dump"), every)

    def table() -> None:
        print(f"Checked {len(told['listeners'])} listeners of {told['pod']}.")
        header = ("LISTENER[FilterChain]", "HTTP ROUTE", "ALPN", "mTLS (MODE)", "AuthZ (RULES)")
        rows = [
            (one["listener"], one["route"], one["alpn"] or "-", _mtls(one["mtls"]), _rules(one["rules"]))
            for one in told["listeners"]
        ]
        print_columns(header, rows)
        print()
        policies = [(one["action"], one["policy"], str(one["rules"]) + one["note"]) for one in told["policies"]]
        print_columns(("ACTION", "AuthorizationPolicy", "RULES"), policies or [("-", "(none: every request is let in)", "0")])

    choose(output, told, table)
    return 0


def _mtls(mode: str) -> str:
    return f"{'no' if mode in ('', 'DISABLE') else 'yes'} ({mode or 'none'})"


def _rules(rules: int | None) -> str:
    return "no (none)" if rules is None else f"yes ({rules} rule{'' if rules == 1 else 's'})"


def facts(pod: str, dump: Mapping[str, Any], every: bool) -> dict[str, Any]:
    """What the tables show. ``dump``: the sidecar's resources."""
    security = next(iter(bodies(dump, "security")), {})
    policies = security.get("policies", ())
    enforced = sum(len(policy.get("rules", ())) for policy in policies if not policy.get("dry_run"))
    services = {cluster["name"]: cluster.get("service") or {} for cluster in bodies(dump, "cluster")}
    listeners: list[dict[str, Any]] = []
    for listener in bodies(dump, "listener"):
        inbound = listener["direction"] != "outbound"
        if not inbound and not every:
            continue
        if listener["direction"] == "inbound" and listener.get("chains"):
            listeners += _chains(listener, services, len(listeners), enforced if policies else None)
            continue
        tls = listener.get("tls", ())
        mode = (
            listener.get("mtls", "DISABLE")
            if listener["direction"] == "inbound"
            else ",".join(one.get("mode", "SIMPLE") for one in tls)
        )
        secured = mode not in ("", "DISABLE")
        listeners.append(
            {
                "listener": {"inbound": "virtualInbound", "outbound": "virtualOutbound"}.get(
                    listener["direction"], listener["name"]
                )
                + f"[{len(listeners)}]",
                "route": _route(listener, services),
                "alpn": "" if not secured else _ALPN if listener["direction"] == "inbound" else "http/1.1",
                "mtls": mode,
                "mtlsSource": listener.get("mtls_source", ""),
                "rules": enforced if inbound and policies else None,
            }
        )
    return {"pod": pod, "listeners": listeners, "policies": [_policy(policy) for policy in policies]}


def _chains(listener: Mapping[str, Any], services: Mapping[str, Any], first: int, rules: int | None) -> Iterator[dict[str, Any]]:
    """A row for each chain: what is there is HTTP, bytes, or found out by looking."""
    for number, chain in enumerate(listener["chains"]):
        mode, protocol = chain.get("mtls", "DISABLE"), chain.get("protocol", "AUTO")
        host = services.get(f"inbound|{chain.get('port', 0)}||", {}).get("host", "")
        bytes_ = "istio-peer-exchange,istio"
        alpn = {"HTTP": _ALPN, "TCP": bytes_, "AUTO": f"{bytes_},istio-http/1.0,istio-http/1.1"}[protocol]
        yield {
            "listener": f"virtualInbound[{first + number}]",
            "route": f"inbound|{chain.get('port') or '*'}|{protocol.lower()}|{host}",
            "alpn": alpn if mode != "DISABLE" else "",
            "mtls": mode,
            "mtlsSource": chain.get("mtls_source", ""),
            "rules": rules,
        }


def _route(listener: Mapping[str, Any], services: Mapping[str, Any]) -> str:
    """``inbound|8080|http|book-service.default.svc.cluster.local``, as istioctl writes it."""
    if listener["direction"] != "inbound":
        return str(listener.get("route") or ",".join(str(port) for port in listener.get("route_ports", ())))
    host = services.get(f"inbound|{listener['port']}||", {}).get("host", "")
    return f"inbound|{listener['port']}|http|{host}"


def _policy(policy: Mapping[str, Any]) -> dict[str, Any]:
    space, _, name = policy["name"].partition("/")
    notes = [" (dry run)"] if policy.get("dry_run") else []
    if policy.get("unusable"):
        notes.append(f" (denies everything: {policy['unusable']})")
    if policy.get("provider"):
        notes.append(f" (asks {policy['provider']})")
    return {
        "action": policy.get("action", "ALLOW"),
        "policy": f"{name}.{space}",
        "rules": len(policy.get("rules", ())),
        "note": "".join(notes),
    }
