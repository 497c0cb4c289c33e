"""``meshctl x mtls report``: who calls over mutual TLS and who still in plaintext, per workload and port: for the move to STRICT.

In: a namespace or a pod. Out: a table, who stands in the way, and a verdict per workload; or JSON and YAML. The counts are the
sidecars' own, since each of them started; nothing is known of who did not call in that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, Namespace, Output, connect, examples

__all__ = ["register_experimental", "summary"]

PLAINTEXT, MUTUAL, REFUSED = "plaintext", "mutual TLS", "refused"
_MODES = ("DISABLE", "PERMISSIVE", "STRICT")


def register(app: typer.Typer) -> None:
    """Nothing outside ``experimental``."""


def register_experimental(app: typer.Typer) -> None:
    group = typer.Typer(help="Mutual TLS between workloads.", no_args_is_help=True)
    lines = ("meshctl x mtls report", "meshctl x mtls report -n shop", "meshctl x mtls report rating-service-v1 -o json")
    group.command("report", epilog=examples(*lines))(report)
    app.add_typer(group, name="mtls")


def report(
    pod: Annotated[
        str | None, typer.Argument(metavar="[POD]", help="Only this one: POD, POD.NAMESPACE or NAMESPACE/POD.")
    ] = None,
    namespace: Namespace = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show who still calls in plaintext, and which workloads are ready for STRICT."""
    import time

    from control.cli.out import choose, print_columns, warn
    from control.cli.proxies import pod_name

    api = connect(kubeconfig, context)
    space, name = pod_name(pod, namespace or api.target.namespace) if pod else (namespace or "", "")
    found = api.request("GET", "/mesh/v1/callers", params={"namespace": space})
    pods = [one for one in found["pods"] if name in ("", one["pod"])]
    if pod and not pods:
        raise CliError(f"no sidecar {space}/{name} is connected; `meshctl proxy-status` lists those that are")
    told = summary(pods)
    told["unanswered"] = [one for one in found["unanswered"] if name in ("", one["pod"])]
    now = time.time()

    def table() -> None:
        header = ("WORKLOAD", "PORT", "MODE", "FROM", "MUTUAL TLS", "PLAINTEXT", "REFUSED", "VERDICT")
        rows = []
        for one in told["workloads"]:
            for port in one["ports"]:
                counts = [str(sum(caller["requests"] for caller in port["callers"] if caller["how"] == how)) for how in _HOWS]
                about = [f"{one['workload']}.{one['namespace']}", str(port["port"]), port["mtls"], port["source"] or "(default)"]
                rows.append([*about, *counts, port["verdict"]])
        if rows:
            print_columns(header, rows)
        else:
            print(f"No sidecar{f' of namespace {space}' if space else ''} has an inbound port.")
        callers = list(_standing(told["workloads"], now))
        if callers:
            print()
            print_columns(("STILL IN PLAINTEXT", "CALLS", "PORT", "REQUESTS", "LAST SEEN"), callers)
        warn(f"{one['namespace']}/{one['pod']}: {one['problem']}: it is not in this report" for one in told["unanswered"])

    choose(output, told, table)
    return 0


_HOWS = (MUTUAL, PLAINTEXT, REFUSED)


def _standing(workloads: Iterable[Mapping[str, Any]], now: float) -> Iterable[list[str]]:
    """Who calls in plaintext, or is turned away for it."""
    for one in workloads:
        for port in one["ports"]:
            for caller in port["callers"]:
                if caller["how"] != MUTUAL:
                    refused = " refused" if caller["how"] == REFUSED else ""
                    called = f"{one['workload']}.{one['namespace']}"
                    yield [who(caller), called, str(port["port"]), f"{caller['requests']}{refused}", _ago(caller["seen"], now)]


def who(caller: Mapping[str, Any]) -> str:
    """A workload, else an address."""
    if caller["workload"]:
        return f"{caller['workload']}.{caller['namespace']} ({caller['source']})"
    return str(caller["source"]) or "others, no longer told apart"


def _ago(seen: float, now: float) -> str:
    if not seen:
        return "-"
    seconds = max(0, int(now - seen))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


# -- adding up -----------------------------------------------------------------------------------------------------------


def summary(pods: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Per workload and port: the mode, who called how, and a verdict; the callers of its pods are added up."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    since: dict[tuple[str, str], float] = {}
    for pod in pods:
        key = (pod["namespace"], pod["workload"])
        ports = found.setdefault(key, {})
        since[key] = max(since.get(key, 0.0), pod["since"])  # the youngest pod knows the least
        for listener in pod["listeners"]:
            port = ports.setdefault(
                listener["port"],
                {"port": listener["port"], "mtls": listener["mtls"], "source": listener["source"], "callers": {}},
            )
            if _MODES.index(listener["mtls"]) < _MODES.index(port["mtls"]):  # pods that differ: the laxest counts
                port.update(mtls=listener["mtls"], source=listener["source"])
            for caller in listener["callers"]:
                _add(port["callers"], caller)
    workloads = []
    for (namespace, workload), ports in sorted(found.items()):
        rows = []
        for _, port in sorted(ports.items()):
            callers = sorted(port["callers"].values(), key=lambda one: (_HOWS.index(one["how"]), one["namespace"], one["source"]))
            rows.append({**port, "callers": callers, "verdict": _verdict(port["mtls"], callers)})
        ready = all(row["mtls"] == "STRICT" or row["verdict"] == _READY for row in rows)
        workloads.append(
            {"namespace": namespace, "workload": workload, "since": since[(namespace, workload)], "ready": ready, "ports": rows}
        )
    return {"workloads": workloads}


def _add(callers: dict[tuple[str, str], dict[str, Any]], caller: Mapping[str, Any]) -> None:
    known = callers.setdefault((caller["how"], caller["source"]), {**caller, "requests": 0, "seen": 0})
    known["requests"] += caller["requests"]
    known["seen"] = max(known["seen"], caller["seen"])


_STRICT, _READY = "STRICT already", "ready for STRICT"


def _verdict(mode: str, callers: Iterable[Mapping[str, Any]]) -> str:
    """What stands between this port and STRICT."""
    hows = {how: [caller for caller in callers if caller["how"] == how] for how in _HOWS}
    if mode == "STRICT":
        refused = len(hows[REFUSED])
        return _STRICT if not refused else f"STRICT; {refused} plaintext caller{'s' if refused > 1 else ''} turned away"
    if mode == "DISABLE":
        return "mutual TLS is switched off: nobody is counted"
    if hows[PLAINTEXT]:
        names = sorted({f"{one['workload']}.{one['namespace']}" if one["workload"] else one["source"] for one in hows[PLAINTEXT]})
        return f"not ready: {', '.join(names[:2])}" + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    return _READY if hows[MUTUAL] else "nobody has called yet"
