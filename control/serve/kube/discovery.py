"""What this API serves, for clients that ask first: versions, groups, resources, in both of Kubernetes' forms.

Room: control/serve/kube; pure but for the request. In: KINDS. Out: discovery documents. All of it is made once, at import: the
kinds never change while the service runs.
"""

from __future__ import annotations

import hashlib
import platform
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from control.resources.kinds import KINDS, Kind
from control.serve.kube import status
from control.serve.kube.reviews import REVIEWS
from control.serve.kube.table import encode

__all__ = ["VERSION", "api_versions", "groups", "resources", "served_groups", "version"]

Obj = dict[str, Any]

# The API level whose shape is spoken here; kubectl compares it with its own (one minor version of skew is quiet).
VERSION = "v1.32.0"
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_STATUS_VERBS = ["get", "patch", "update"]
_NO_STATUS = frozenset({"Endpoints", "EndpointSlice", "ConfigMap", "Secret", "ServiceAccount", "Event"})


def served_groups() -> dict[str, tuple[str, ...]]:
    """Group -> versions, the preferred first; "" is core. A group's versions are those that any of its kinds is served in."""
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        versions = found.setdefault(kind.group, [])
        versions += [version for version in kind.versions if version not in versions]
    for group, _ in REVIEWS:
        found.setdefault(group, ["v1"])
    return {group: tuple(versions) for group, versions in found.items()}


def has_status(kind: Kind) -> bool:
    return kind.kind not in _NO_STATUS


def _subresources(kind: Kind) -> list[tuple[str, str, list[str]]]:
    """(name, kind, verbs)"""
    found = [("status", kind.kind, _STATUS_VERBS)] if has_status(kind) else []
    if kind.kind == "Pod":
        found += [("log", "Pod", ["get"])]
    return found


def _kinds(group: str, version: str) -> list[Kind]:
    return sorted((k for k in KINDS if k.group == group and version in k.versions), key=lambda k: k.plural)


def _resource_list(group: str, version: str) -> Obj:
    found: list[Obj] = []
    for kind in _kinds(group, version):
        mark = hashlib.sha256(f"{group}/{kind.plural}".encode()).hexdigest()[:12]
        one: Obj = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": _VERBS,
            "storageVersionHash": mark,
        }
        if kind.short_names:
            one["shortNames"] = list(kind.short_names)
        if kind.categories:
            one["categories"] = list(kind.categories)
        found.append(one)
        for name, of_kind, verbs in _subresources(kind):
            found.append(
                {
                    "name": f"{kind.plural}/{name}",
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": of_kind,
                    "verbs": verbs,
                }
            )
    for (of_group, plural), review in REVIEWS.items():
        if of_group == group:
            found.append(
                {
                    "name": plural,
                    "singularName": review.lower(),
                    "namespaced": False,
                    "kind": review,
                    "verbs": ["create"],
                }
            )
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": found}


def _aggregated(group: str, version: str) -> Obj:
    """The same, in the shape of apidiscovery.k8s.io."""
    found: dict[str, Obj] = {}
    for one in _resource_list(group, version)["resources"]:
        name, _, sub = one["name"].partition("/")
        response_kind = {"group": group, "version": version, "kind": one["kind"]}
        if sub:
            found[name].setdefault("subresources", []).append(
                {"subresource": sub, "responseKind": response_kind, "verbs": one["verbs"]}
            )
            continue
        found[name] = {
            "resource": name,
            "responseKind": response_kind,
            "scope": "Namespaced" if one["namespaced"] else "Cluster",
            "singularResource": one["singularName"],
            "verbs": one["verbs"],
            **{key: one[key] for key in ("shortNames", "categories") if key in one},
        }
    return {"version": version, "resources": list(found.values()), "freshness": "Current"}


def _aggregated_groups(core: bool, form: str) -> Obj:
    items = []
    for group, versions in served_groups().items():
        if (group == "") is core:
            meta: Obj = {"creationTimestamp": None, **({"name": group} if group else {})}
            items.append({"metadata": meta, "versions": [_aggregated(group, version) for version in versions]})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{form}",
        "metadata": {},
        "items": items,
    }


def _group(group: str) -> Obj:
    versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in served_groups()[group]]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _negotiated(request: Request, core: bool, plain: Obj) -> Response:
    for part in request.headers.get("accept", "").split(","):
        media, *given = (piece.strip() for piece in part.split(";"))
        options = dict(option.split("=", 1) for option in given if "=" in option)
        form = options.get("v", "")
        if options.get("as") == "APIGroupDiscoveryList" and media == "application/json" and form in ("v2", "v2beta1"):
            kind = f"application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList"
            return Response(encode(_aggregated_groups(core, form)), headers={"Content-Type": kind, "Vary": "Accept"})
    return Response(encode(plain), media_type="application/json", headers={"Vary": "Accept"})


async def api_versions(request: Request) -> Response:
    """``GET /api``"""
    plain = {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    }
    return _negotiated(request, True, plain)


async def groups(request: Request) -> Response:
    """``GET /apis`` and ``GET /apis/GROUP``"""
    name = request.path_params.get("group")
    if name is not None:
        if not name or name not in served_groups():
            raise status.no_such_path()
        return Response(encode({"kind": "APIGroup", "apiVersion": "v1", **_group(name)}), media_type="application/json")
    listed = [_group(group) for group in served_groups() if group]
    return _negotiated(request, False, {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})


async def resources(request: Request) -> Response:
    """``GET /api/v1`` and ``GET /apis/GROUP/VERSION``"""
    group, wanted = request.path_params.get("group", ""), request.path_params["version"]
    if wanted not in served_groups().get(group, ()):
        raise status.no_such_path()
    return Response(encode(_resource_list(group, wanted)), media_type="application/json")


async def version(request: Request) -> Response:
    """``GET /version``"""
    major, minor, _ = VERSION.lstrip("v").split(".")
    found = {
        "major": major,
        "minor": minor,
        "gitVersion": f"{VERSION}+pymesh",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": f"python{platform.python_version()}",
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }
    return Response(encode(found), media_type="application/json")
