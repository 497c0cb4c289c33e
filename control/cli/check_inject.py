"""``meshctl x check-inject``: would this pod get a sidecar, and why (not)?

In: a pod, or something that makes pods, or labels. Out: a row for each injection webhook of the cluster: istioctl's table. A
webhook's selectors decide first, as in the API server; what they let through is judged as the injector judges it (the host's
network, Windows, namespaces that are left alone, the policy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, Namespace, connect, examples

if TYPE_CHECKING:
    from control.client.api import Api
    from injector.settings import Settings

__all__ = ["Row", "judge", "register_experimental", "register"]

Obj = dict[str, Any]
Labels = dict[str, str]
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_KINDS = {
    "deployment": ("apis/apps/v1", "deployments"),
    "statefulset": ("apis/apps/v1", "statefulsets"),
    "daemonset": ("apis/apps/v1", "daemonsets"),
    "replicaset": ("apis/apps/v1", "replicasets"),
    "replicationcontroller": ("api/v1", "replicationcontrollers"),
    "job": ("apis/batch/v1", "jobs"),
    "cronjob": ("apis/batch/v1", "cronjobs"),
}
_SHORT = {"deploy": "deployment", "sts": "statefulset", "ds": "daemonset", "rs": "replicaset", "rc": "replicationcontroller"}
_SHORT |= {"cj": "cronjob", "po": "pod"}


class Row(NamedTuple):
    webhook: str
    revision: str
    injected: bool
    reason: str


def register(app: typer.Typer) -> None:
    """It is an experimental verb only."""


def register_experimental(app: typer.Typer) -> None:
    app.command(
        "check-inject",
        epilog=examples(
            "meshctl x check-inject book-service-5f6d8-x2x7z.shop",
            "meshctl x check-inject deploy/book-service -n shop",
            "meshctl x check-inject -n shop -l app=book,version=v1",
        ),
    )(check_inject)


def check_inject(
    target: Annotated[str | None, typer.Argument(metavar="[TYPE/]NAME[.NAMESPACE]", help="A pod, or deploy/NAME.")] = None,
    namespace: Namespace = None,
    labels: Annotated[str | None, typer.Option("-l", "--labels", help="Labels of a pod to be: app=book,version=v1.")] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Explain for each injection webhook whether a pod gets a sidecar."""
    from control.cli.out import print_columns
    from control.client.api import ApiError

    if (target is None) == (labels is None):
        raise CliError("give [TYPE/]NAME[.NAMESPACE], or labels with -l", code=2)
    api = connect(kubeconfig, context)
    space = namespace or api.target.namespace
    if target is not None:
        pod, space = _pod(api, target, namespace, space)
    else:
        pod = {"metadata": {"labels": _labels(labels or "")}, "spec": {}}
    own = api.request("GET", f"/api/v1/namespaces/{space}")["metadata"].get("labels") or {}
    own.setdefault("kubernetes.io/metadata.name", space)  # the API server sets it; ours may not
    try:
        configurations = api.request("GET", WEBHOOKS)["items"]
    except ApiError as refused:
        if refused.code != 404:
            raise
        configurations = []
    rows = [row for one in configurations if _ours(one) for row in [judge(one, pod, own, space, _settings(api, one))]]
    if not rows:
        print("ERROR: no Istio injection hooks present.")
        return 0
    rows.sort()
    print_columns(
        ("WEBHOOK", "REVISION", "INJECTED", "REASON"),
        [(row.webhook, row.revision, "✔" if row.injected else "✘", row.reason) for row in rows],
    )
    if sum(row.injected for row in rows) > 1:
        print("ERROR: multiple webhooks will inject, which can lead to errors")
    return 0


def _labels(text: str) -> Labels:
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise CliError(f"-l {text}: must be like app=book,version=v1", code=2)
        found[key.strip()] = value.removeprefix("=").strip()
    return found


def _pod(api: Api, target: str, namespace: str | None, default: str) -> tuple[Obj, str]:
    """The pod, one that the named object made, or else its template; and its namespace."""
    word, slash, name = target.rpartition("/")
    kind = _SHORT.get(word.lower(), word.lower().removesuffix("s") if word else "pod")
    if not name or (slash and kind != "pod" and kind not in _KINDS):
        raise CliError(f"{target}: must be a pod, or one of {', '.join(sorted(_KINDS))} as TYPE/NAME", code=2)
    space = namespace or default
    if namespace is None and "." in name:
        name, _, space = name.rpartition(".")
    if kind == "pod":
        found: Obj = api.request("GET", f"/api/v1/namespaces/{space}/pods/{name}")
        return found, space
    group, plural = _KINDS[kind]
    spec = api.request("GET", f"/{group}/namespaces/{space}/{plural}/{name}")["spec"]
    if kind == "cronjob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template") or {}, space


def _settings(api: Api, configuration: Obj) -> Settings:
    """Of the injector behind the webhook; defaults when they cannot be read."""
    from control.cli.kube_inject import MESH_MAP, ROOT, SETTINGS_MAP, _data, _judged
    from control.client.api import ApiError

    revision = _revision(configuration)
    suffix = f"-{revision}" if revision not in ("", "default") else ""
    service = next((hook["clientConfig"].get("service") for hook in configuration.get("webhooks") or ()), None) or {}
    try:
        values = _data(api, service.get("namespace") or ROOT, SETTINGS_MAP + suffix, "values")
        return _judged(values, "", MESH_MAP)
    except (ApiError, CliError):
        return _judged("", "", MESH_MAP)


def _revision(configuration: Obj) -> str:
    return str((configuration["metadata"].get("labels") or {}).get("istio.io/rev") or "")


def _ours(configuration: Obj) -> bool:
    return any(str(hook.get("name", "")).endswith("istio.io") for hook in configuration.get("webhooks") or ())


def judge(configuration: Obj, pod: Obj, namespace_labels: Labels, namespace: str, settings: Settings) -> Row:
    """What one webhook configuration does with a pod."""
    from injector.decide import decide

    pod_labels = (pod.get("metadata") or {}).get("labels") or {}
    injected, reason = _selected(configuration.get("webhooks") or [], pod_labels, namespace_labels)
    if injected:
        decision = decide(pod, namespace, settings)
        if not decision.inject:
            injected, reason = False, f"{reason}, but {decision.reason}"
    return Row(configuration["metadata"]["name"], _revision(configuration), injected, reason)


def _selected(hooks: list[Obj], pod: Labels, namespace: Labels) -> tuple[bool, str]:
    because = ""
    for hook in hooks:
        spaces, objects = hook.get("namespaceSelector") or {}, hook.get("objectSelector") or {}
        in_space, in_pod = _matches(spaces, namespace), _matches(objects, pod)
        if in_space and in_pod:
            by = _by(spaces, namespace), _by(objects, pod)
            if all(by):
                return True, f"Namespace label {by[0]} matches, and pod label {by[1]} matches"
            label = f"Namespace label {by[0]}" if by[0] else f"Pod label {by[1]}" if by[1] else "Everything"
            return True, f"{label} matches"
        if in_space and not because:
            key = next((key for key in _prevented(objects, pod)), "")
            because = f"Pod has {key}={pod[key]} label, preventing injection" if key else ""
        elif in_pod and not because and namespace.get("istio-injection", "enabled") != "enabled":
            because = f"Namespace has istio-injection={namespace['istio-injection']} label, preventing injection"
    if because:
        return False, because
    if hooks and all(_never(hook) for hook in hooks):
        return False, "The injection webhook is deactivated, and will never match labels."
    names = ("namespaceSelector", "objectSelector")
    lists = ([word for hook in hooks for word in _wanted(hook.get(name) or {})] for name in names)
    spaces_wanted, pods_wanted = (", ".join(dict.fromkeys(words)) for words in lists)
    return False, f"No matching namespace labels ({spaces_wanted}) or pod labels ({pods_wanted})"


def _never(hook: Obj) -> bool:
    return _deactivated(hook.get("namespaceSelector") or {}) and _deactivated(hook.get("objectSelector") or {})


def _deactivated(selector: Obj) -> bool:
    """A label that must be there and must not: Istio's way to switch a webhook off."""
    keys = {one["operator"]: one["key"] for one in selector.get("matchExpressions") or ()}
    return "istio.io/deactivated" in (selector.get("matchLabels") or {}) or (
        keys.get("Exists") is not None and keys.get("Exists") == keys.get("DoesNotExist")
    )


def _matches(selector: Obj, labels: Labels) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions") or ())


def _holds(one: Obj, labels: Labels) -> bool:
    if one["operator"] in ("In", "NotIn"):
        among = labels.get(one["key"]) in (one.get("values") or ())
        return among is (one["operator"] == "In")
    return (one["key"] in labels) is (one["operator"] == "Exists")


def _by(selector: Obj, labels: Labels) -> str:
    keys = [*(selector.get("matchLabels") or {}), *(one["key"] for one in selector.get("matchExpressions") or ())]
    return next((f"{key}={labels[key]}" for key in keys if key in labels), "")


def _prevented(selector: Obj, labels: Labels) -> list[str]:
    return [
        one["key"]
        for one in selector.get("matchExpressions") or ()
        if one["operator"] in ("NotIn", "DoesNotExist") and one["key"] in labels and not _holds(one, labels)
    ]


def _wanted(selector: Obj) -> list[str]:
    pairs = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or ():
        if one["operator"] == "In":
            pairs += [f"{one['key']}={value}" for value in one.get("values") or ()]
    return pairs
