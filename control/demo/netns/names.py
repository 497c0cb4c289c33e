"""What a cluster does for names: Services get addresses, and pods find them by name. Loud only in writing files.

In: the Services that the API has. Out: a ``clusterIP`` for each that needs one, and each pod's hosts file. There is no DNS
server: the names of a namespace's Services are few and change seldom.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from control.demo.netns.layout import cluster_ip

__all__ = ["hosts", "missing", "rewrite"]

_DOMAIN = "svc.cluster.local"


def missing(services: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """(namespace, name, address) of Services that have none and want one."""
    taken = {one["spec"].get("clusterIP") or "" for one in services}
    for one in services:
        if not one["spec"].get("clusterIP") and one["spec"].get("type", "ClusterIP") != "ExternalName":
            namespace, name = one["metadata"]["namespace"], one["metadata"]["name"]
            address = cluster_ip(namespace, name, taken)
            taken.add(address)
            yield namespace, name, address


def hosts(namespace: str, pod: str, address: str, services: Sequence[dict[str, Any]] = ()) -> str:
    """The hosts file of a pod: short names are for its own namespace's Services."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", f"{address}\t{pod}"]
    for one in sorted(services, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"])):
        at = one["spec"].get("clusterIP") or "None"
        if at != "None":
            name, its = one["metadata"]["name"], one["metadata"]["namespace"]
            names = [f"{name}.{its}.{_DOMAIN}", f"{name}.{its}.svc", f"{name}.{its}"]
            lines.append("\t".join((at, " ".join([*names, name] if its == namespace else names))))
    return "".join(line + "\n" for line in lines)


def rewrite(file: Path, text: str) -> None:
    """In place: the namespaces have this very file mounted."""
    data = text.encode()
    if not file.is_file() or file.read_bytes() == data:
        return
    with file.open("r+b") as target:
        os.pwrite(target.fileno(), data, 0)
        os.ftruncate(target.fileno(), len(data))
