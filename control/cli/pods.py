"""Which pods a command line means: by name, by workload, by service, by label, or all.

In: words such as ``book-service``, ``web.shop``, ``deploy/web``, ``svc/rating``, a selector. Out: Pod objects of the API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from control.cli.errors import CliError

if TYPE_CHECKING:
    from control.client.api import Api

__all__ = ["chosen", "full_name"]

Obj = dict[str, Any]
_KINDS = {
    **dict.fromkeys(("pod", "pods", "po"), "pod"),
    **dict.fromkeys(("deploy", "deployment", "deployments", "workload", "statefulset", "sts", "daemonset", "ds"), "workload"),
    **dict.fromkeys(("svc", "service", "services"), "service"),
}


def full_name(pod: Obj) -> tuple[str, str]:
    """(namespace, name)."""
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def chosen(api: Api, words: Sequence[str], namespace: str | None, selector: str | None, everywhere: bool) -> list[Obj]:
    """The pods meant, by namespace and name. Raises ``CliError`` when a word means none."""
    if words and (selector or everywhere):
        raise CliError(f"{words[0]}: give pods, or -l or -A, not both", code=2)
    space = namespace or api.target.namespace
    if words:
        found = [pod for word in words for pod in _meant(api, word, space)]
    else:
        path = "/api/v1/pods" if everywhere else f"/api/v1/namespaces/{space}/pods"
        found = list(api.request("GET", path, params={"labelSelector": selector} if selector else None)["items"])
        if not found:
            where = "any namespace" if everywhere else f"namespace {space}"
            raise CliError(f"there is no pod{f' with {selector}' if selector else ''} in {where}")
    return [pod for _, pod in sorted({full_name(pod): pod for pod in found}.items())]


def _meant(api: Api, word: str, namespace: str) -> list[Obj]:
    kind, slash, name = word.partition("/")
    if not slash:
        return [_pod(api, word, namespace)]
    known = _KINDS.get(kind.lower())
    if known == "workload":
        return _of_workload(api, name, namespace)
    if known == "service":
        return _of_service(api, name, namespace)
    return [_pod(api, name, namespace) if known == "pod" else _pod(api, name, kind)]  # the last: NAMESPACE/POD


def _pod(api: Api, name: str, namespace: str) -> Obj:
    """``POD`` or ``POD.NAMESPACE``; a pod's own name may have dots."""
    from control.client.api import ApiError

    places = [(namespace, name)]
    short, dot, space = name.rpartition(".")
    if dot and short and space:
        places.append((space, short))
    for at, (where, which) in enumerate(places):
        try:
            found: Obj = api.request("GET", f"/api/v1/namespaces/{where}/pods/{which}")
            return found
        except ApiError as refused:
            if refused.code != 404 or at == len(places) - 1 == 0:
                raise
    raise CliError(f"there is no pod {namespace}/{name}, nor {places[-1][0]}/{places[-1][1]}")


def _of_workload(api: Api, name: str, namespace: str) -> list[Obj]:
    """Pods of this Deployment, StatefulSet or the like, as the mesh names workloads."""
    import msgspec

    from control.resources.core import Pod
    from control.world.pods import pod_info

    found = []
    for pod in api.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]:
        try:
            info = pod_info(msgspec.convert(pod, Pod, strict=False))
        except msgspec.ValidationError:
            continue
        if info.workload.workload == name:
            found.append(pod)
    if not found:
        raise CliError(f"no pod of namespace {namespace} is of a workload {name!r}")
    return found


def _of_service(api: Api, name: str, namespace: str) -> list[Obj]:
    service = api.request("GET", f"/api/v1/namespaces/{namespace}/services/{name}")
    labels = service.get("spec", {}).get("selector") or {}
    if not labels:
        raise CliError(f"service {name} has no selector; name its pods")
    params = {"labelSelector": ",".join(f"{key}={value}" for key, value in sorted(labels.items()))}
    found: list[Obj] = api.request("GET", f"/api/v1/namespaces/{namespace}/pods", params=params)["items"]
    if not found:
        raise CliError(f"service {name} has no pods")
    return found
