"""``meshctl wait``: until a condition holds, an object is gone, or every sidecar has what a file says.

In: types and names, or files. Out: one line per object; exit 1 at the timeout with what was still awaited. Distribution of a
file is of what the file says: an object that is not there, or is there otherwise, is waited for, since an apply may be under way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Files, Kubeconfig, Namespace, Selector, connect, examples, seconds

if TYPE_CHECKING:
    from control.cli.refs import Document, Ref
    from control.client.api import Api

__all__ = ["register"]

PAUSE = 0.05  # seconds between looks


def register(app: typer.Typer) -> None:
    app.command(
        "wait",
        epilog=examples(
            "meshctl wait --for=distribution -f virtual-service-v1.yml",
            "meshctl wait --for=condition=Ready pod/book-service --timeout=30s",
            "meshctl wait --for=delete vs/rating                (gone, and every sidecar knows)",
        ),
    )(wait)


def wait(
    what: Annotated[list[str] | None, typer.Argument(help="TYPE NAME…, or TYPE/NAME…")] = None,
    for_: Annotated[
        str, typer.Option("--for", help="distribution, condition=NAME[=VALUE], jsonpath={.path}=VALUE, create or delete.")
    ] = "",
    filename: Files = None,
    namespace: Namespace = None,
    selector: Selector = None,
    all_: Annotated[bool, typer.Option("--all", help="Every object of the type.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="How long, such as 30s or 1m.")] = "30s",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Block until something is so."""
    from control.cli.refs import Ref, documents, named, ref_of

    patience = seconds(timeout, "--timeout")
    if not for_:
        raise CliError("say what to wait for: --for=distribution, --for=condition=Ready, --for=delete", code=2)
    api = connect(kubeconfig, context)
    space = namespace or api.target.namespace
    files = [*filename, *(what or ())] if filename else []
    given = list(documents(files))
    refs: list[Ref] = [ref_of(document, space) for document in given]
    says = dict(zip(refs, given, strict=True))
    for ref in named([] if filename else what or [], space):
        if ref.name:
            refs.append(ref)
        elif selector or all_:
            items = api.request("GET", ref.path, params={"labelSelector": selector} if selector else {})["items"]
            refs += [Ref(ref.kind, ref.namespace, item["metadata"]["name"]) for item in items]
    if not refs:
        raise CliError("name what to wait for: -f FILE, TYPE NAME, or TYPE with -l or --all", code=2)
    judge, words = _condition(for_, says)
    deadline = time.monotonic() + patience
    for ref in refs:
        while (said := judge(api, ref)) is None:
            if time.monotonic() > deadline:
                raise CliError(f"timed out waiting for {words} on {ref.kind.plural}/{ref.name}{_late(api, ref, for_, says)}")
            time.sleep(PAUSE)
        print(f"{ref.said} {said}", flush=True)
    return 0


Judge = Callable[["Api", "Ref"], str | None]


def _condition(text: str, says: Mapping[Ref, Document]) -> tuple[Judge, str]:
    """A test that gives kubectl's words once it holds, and what to call it in an error. ``says``: the files' objects."""
    name, _, value = text.partition("=")
    if text == "distribution":
        return lambda api, ref: _distributed(api, ref, says.get(ref)), "distribution"
    if text == "delete":
        return _gone, "the condition"
    if text == "create":
        return lambda api, ref: "condition met" if _get(api, ref) is not None else None, "the condition"
    if name == "condition" and value:
        kind, _, wanted = value.partition("=")
        return lambda api, ref: _holds(_need(api, ref), kind, wanted or "True"), "the condition"
    found = re.fullmatch(r"jsonpath=['\"]?\{(?P<path>[^}]+)\}['\"]?(=(?P<value>.*))?", text)
    if found:
        path, wanted_text = found["path"], found["value"]

        def matches(api: Api, ref: Ref) -> str | None:
            there = _at(_need(api, ref), path)
            met = there is not None if wanted_text is None else _plain(there) == wanted_text.strip("'\"")
            return "condition met" if met else None

        return matches, "the condition"
    raise CliError(f"--for={text}: must be distribution, condition=NAME, jsonpath={{.path}}=VALUE, create or delete", code=2)


def _get(api: Api, ref: Ref) -> Any:
    from control.client.api import ApiError

    try:
        return api.request("GET", ref.path)
    except ApiError as refused:
        if refused.code == 404:
            return None
        raise


def _need(api: Api, ref: Ref) -> Any:
    return api.request("GET", ref.path)


def _holds(item: dict[str, Any], kind: str, wanted: str) -> str | None:
    for condition in item.get("status", {}).get("conditions") or ():
        if condition.get("type", "").lower() == kind.lower() and condition.get("status", "").lower() == wanted.lower():
            return "condition met"
    return None


def _at(item: Any, path: str) -> Any:
    """``.a.b[0].c``; None where it ends early."""
    for key, index in re.findall(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]", path):
        if key:
            item = item.get(key) if isinstance(item, dict) else None
        else:
            item = item[int(index)] if isinstance(item, list) and int(index) < len(item) else None
    return item


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _distribution(api: Api, ref: Ref, item: Any) -> dict[str, Any]:
    """Which sidecars have the object as ``item`` is; one that is gone counts by the version of its absence."""
    params = {
        "group": ref.kind.group,
        "plural": ref.kind.plural,
        "namespace": ref.namespace or "",
        "name": ref.name,
        "resourceVersion": (item or api.request("GET", ref.collection))["metadata"]["resourceVersion"],
    }
    answer: dict[str, Any] = api.request("GET", "/mesh/v1/distribution", params=params)
    return answer


def _distributed(api: Api, ref: Ref, said: Document | None) -> str | None:
    item = _get(api, ref)
    if item is None or _differences(item, said):
        return None
    answer = _distribution(api, ref, item)
    return None if answer["pending"] else f"distributed to {len(answer['done'])} proxies"


def _gone(api: Api, ref: Ref) -> str | None:
    return "condition met" if _get(api, ref) is None and not _distribution(api, ref, None)["pending"] else None


def _differences(item: dict[str, Any], said: Document | None) -> list[str]:
    """Where apply would still change the object, as paths; what others wrote beside it is no difference."""
    from control.cli.merge import last_applied, three_way

    if said is None:
        return []
    patch = three_way(last_applied(item), said.object, item)
    for field in ("apiVersion", "kind", "metadata", "status"):
        patch.pop(field, None)
    return [f"{field}.{key}" for field, part in patch.items() for key in (part if isinstance(part, dict) else ("",))]


def _late(api: Api, ref: Ref, condition: str, says: Mapping[Ref, Document]) -> str:
    """What is missing, or who is late, so that the user knows where to look."""
    if condition not in ("distribution", "delete"):
        return ""
    item, said = _get(api, ref), says.get(ref)
    if condition == "distribution":
        if item is None:
            file = said.source if said else "its file"
            return f": it is not there; apply {file} first, or wait for its end with --for=delete"
        if said and (paths := _differences(item, said)):
            return f": the mesh has another one than {said.source}; {', '.join(path.rstrip('.') for path in paths)} differs"
    elif item is not None:
        return ""
    answer = _distribution(api, ref, item)
    names = ", ".join(f"{name} ({answer['errors'][name]})" if name in answer["errors"] else name for name in answer["pending"])
    return f": {names} did not confirm; see `meshctl proxy-status`"
