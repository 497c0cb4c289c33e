"""``meshctl verify-install`` and ``x precheck``: is the mesh there and at work; could it be installed.

In: the cluster, and for the first the settings of the installation, if given. Out: a line for each thing looked at; exit 1 when
something is wrong.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

from control.cli.errors import CliError
from control.cli.install import Revision, Sets, SpecFiles
from control.cli.options import Context, Kubeconfig, connect, examples

__all__ = ["register", "register_experimental"]

Obj = dict[str, Any]
OLDEST, KUBERNETES = (1, 27), "1.27"


def register(app: typer.Typer) -> None:
    app.command("verify-install", epilog=examples("meshctl verify-install", "meshctl verify-install --set profile=demo"))(
        verify_install
    )


def register_experimental(app: typer.Typer) -> None:
    app.command("precheck", epilog=examples("meshctl x precheck", "meshctl x precheck --revision canary"))(precheck)


class _Told:
    """Lines, and whether one of them is bad."""

    def __init__(self) -> None:
        self.bad = 0

    def line(self, good: bool, text: str) -> None:
        self.bad += not good
        print(f"{'✔' if good else '✘'} {text}")


def verify_install(
    set_: Sets = None,
    filename: SpecFiles = None,
    revision: Revision = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Check that the mesh is installed and at work; with settings also that it is the one that they describe."""
    from control.cli.install import fitted, made
    from control.cli.installed import differences, get, inspect, said

    asked = bool(set_ or filename)
    plan, _ = made(set_ if asked else ["profile=minimal"], filename, revision)
    api = connect(kubeconfig, context)
    cluster = inspect(api, plan)
    if cluster.problem:
        raise CliError(f"{cluster.problem}: there is no installation to verify")
    told = _Told()
    from control.install.manifest import objects

    fitting, _ = fitted(plan, cluster)
    for obj in objects(fitting):
        live = get(api, obj)
        where = f" -n {obj['metadata']['namespace']}" if obj["metadata"].get("namespace") else ""
        if live is None:
            told.line(False, f"{said(obj)}{where}: is not there")
            continue
        places = differences(obj, live) if asked else []
        told.line(not places, f"{said(obj)}{where}" + (f": differs at {', '.join(places[:4])}" if places else ""))
        for problem in _unfit(obj, live):
            told.line(False, f"{said(obj)}{where}: {problem}")
    if not asked:
        _gateways(api, plan.rev, told)
    if told.bad:
        print(f"{told.bad} of these are wrong: the mesh is not completely installed", file=sys.stderr)
        return 1
    print("the mesh is installed and at work", file=sys.stderr)
    return 0


def _gateways(api: Any, rev: str, told: _Told) -> None:
    """Whatever else of ours runs."""
    from control.cli.installed import collection, said
    from control.install.plan import PART_OF

    selector = f"app.kubernetes.io/part-of={PART_OF},istio.io/rev={rev},app notin (istiod,sidecar-injector)"
    for live in api.request("GET", collection("Deployment"), params={"labelSelector": selector})["items"]:
        named = {**live, "kind": "Deployment"}
        problems = _unfit(named, live)
        told.line(not problems, f"{said(named)} -n {live['metadata']['namespace']}" + "".join(f": {one}" for one in problems))


def _unfit(obj: Obj, live: Obj) -> list[str]:
    """What is there and does not work."""
    status = live.get("status") or {}
    if obj["kind"] == "Deployment":
        wanted, ready = (live.get("spec") or {}).get("replicas", 1), status.get("readyReplicas") or 0
        if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
            return ["its last change is not yet rolled out"]
        return (
            []
            if ready >= wanted
            else [f"{ready} of {wanted} pods are ready (kubectl describe deployment {live['metadata']['name']})"]
        )
    if obj["kind"] == "CustomResourceDefinition":
        conditions = {one.get("type"): one for one in status.get("conditions") or ()}
        if (conditions.get("Established") or {}).get("status") == "True":
            return []
        why = (conditions.get("NonStructuralSchema") or conditions.get("NamesAccepted") or {}).get("message", "")
        return [f"is not established{': ' + why if why else ''}"]
    if obj["kind"].endswith("WebhookConfiguration"):
        empty = [hook["name"] for hook in live.get("webhooks") or () if not (hook.get("clientConfig") or {}).get("caBundle")]
        return [f"control has not written caBundle of {', '.join(empty)}: is a pod of it ready?"] if empty else []
    return []


def precheck(
    revision: Revision = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Check that the mesh can be installed in the cluster, or upgraded."""
    from control.cli.install import made, stands_against
    from control.cli.installed import inspect
    from control.install.manifest import objects

    plan, _ = made(["profile=demo"], None, revision)
    api = connect(kubeconfig, context)
    cluster = inspect(api, plan)
    if cluster.problem:
        raise CliError(f"{cluster.problem}: there is nothing to install into")
    told = _Told()
    parts = cluster.version.removeprefix("v").split(".")
    numbers = tuple(int(part.rstrip("+")) for part in parts[:2] if part.rstrip("+").isdigit())
    told.line(
        numbers >= OLDEST, f"Kubernetes {cluster.version}" + ("" if numbers >= OLDEST else f": {KUBERNETES} or newer is needed")
    )
    try:
        stands_against(plan, cluster, force=False)
        told.line(True, "no other mesh stands against it")
    except CliError as problem:
        for line in problem.line.splitlines():
            told.line(False, line.removeprefix("error: "))
    for kind in dict.fromkeys(obj["kind"] for obj in objects(plan)):
        namespaced = any(obj["kind"] == kind and "namespace" in obj["metadata"] for obj in objects(plan))
        missing = [verb for verb in ("create", "patch", "get") if not _may(api, kind, verb, plan.namespace if namespaced else "")]
        if missing:
            told.line(False, f"you may not {', '.join(missing)} {kind}: ask an administrator of the cluster")
    for name in cluster.crds:
        for fault in _stored(api, name, objects(plan)):
            told.line(False, fault)
    for fault in _labels(api, plan.namespace):
        told.line(False, fault)
    if told.bad:
        return 1
    print("No issues found when checking the cluster. The mesh is safe to install or upgrade.")
    return 0


def _may(api: Any, kind: str, verb: str, namespace: str) -> bool:
    from control.cli.installed import KINDS

    group, plural, _ = KINDS[kind]
    parts = group.split("/")
    asked = {"verb": verb, "group": parts[1] if parts[0] == "apis" else "", "resource": plural, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}},
    }
    answer = api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
    return bool((answer.get("status") or {}).get("allowed"))


def _stored(api: Any, name: str, wanted: list[Obj]) -> list[str]:
    """A version in which objects are stored must go on being one of the definition's."""
    from control.cli.installed import get

    ours = next((obj for obj in wanted if obj["kind"] == "CustomResourceDefinition" and obj["metadata"]["name"] == name), None)
    live = get(api, ours) if ours is not None else None
    if ours is None or live is None:
        return []
    served = {version["name"] for version in ours["spec"]["versions"]}
    lost = sorted(set((live.get("status") or {}).get("storedVersions") or ()) - served)
    return [f"{name}: objects are stored as {', '.join(lost)}, which is not served any more: migrate them first"] if lost else []


def _labels(api: Any, root: str) -> list[str]:
    """Labels of namespaces that are at odds."""
    from control.cli.installed import survey

    found = []
    for one in survey(api, "Namespace"):
        labels, name = one["metadata"].get("labels") or {}, one["metadata"]["name"]
        if "istio-injection" in labels and "istio.io/rev" in labels:
            found.append(f"namespace {name}: has both istio-injection and istio.io/rev: the first wins; remove one")
        if name == root and "istio-injection" in labels:
            found.append(f"namespace {name}: istio-injection keeps the injector from its gateways: remove the label")
    return found
