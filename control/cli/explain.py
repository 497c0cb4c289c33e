"""``meshctl explain METHOD URL --from POD``: the decision that the mesh would take for a request, and why not another.

In: a request. Out: the decision in words, or as JSON or YAML: the caller's sidecar's, and then the destination's (``callee``).
Running sidecars are asked through control, so that endpoints show their state; with ``-f`` files are translated and compiled as
for a sidecar and the same code is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Files, Kubeconfig, Namespace, Output, connect, examples

if TYPE_CHECKING:
    from control.cli.callee import As
    from control.client.api import Api

__all__ = ["header_list", "register"]


def register(app: typer.Typer) -> None:
    app.command(
        "explain",
        epilog=examples(
            "meshctl explain GET http://rating:8080/rate/1 --from book-service",
            "meshctl explain http://rating:8080/rate/1 --from book-service -H 'x-user: jo'",
            'meshctl explain http://book-service:8080/book/1 --at book-service -H "Authorization: Bearer $TOKEN"',
            "meshctl explain DELETE http://rating:8080/rate/1 --at rating-service-v1 --as default/book-service",
            "meshctl explain GET http://rating:8080/rate/1 --from book-service -f manifests/    (before anything is applied)",
        ),
    )(explain)


def explain(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[METHOD] URL", help="The request; GET if no method is given. With -f, more files may follow."),
    ],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Who sends it: POD, POD.NAMESPACE, NAMESPACE/POD; with -f a Deployment too, or gateway."),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Instead of --from: whom it reaches; only that pod's door is asked.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option("-H", "--header", help="'name: value'; repeatable.")] = None,
    principal: Annotated[
        str | None, typer.Option("--as", metavar="NAMESPACE/ACCOUNT", help="Come in with this identity, over mutual TLS.")
    ] = None,
    plaintext: Annotated[bool, typer.Option("--plaintext", help="Come in without mutual TLS.")] = False,
    address: Annotated[str | None, typer.Option("--source-ip", metavar="ADDRESS", help="Come in from this address.")] = None,
    claims: Annotated[
        str | None,
        typer.Option("--claims", metavar="JSON", help="As though a token with these claims had been verified; it needs its iss."),
    ] = None,
    filename: Files = None,
    listener: Annotated[
        str | None, typer.Option("--listener", help="Ask this listener, such as 'inbound|8080', instead of the usual one.")
    ] = None,
    namespace: Namespace = None,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Say what the mesh would do with a request: route, destinations, mutual TLS, tokens, policies; and why not otherwise.

    The caller's sidecar is asked, and then the destination's, with the caller's identity. A token is used and never shown.
    """
    from control.cli.callee import As
    from control.cli.decision import lines
    from control.cli.out import choose

    words, more = _apart(words) if filename else (words, [])
    if len(words) > 2:
        raise CliError(f"{' '.join(words[2:])}: give one METHOD and one URL; quote a URL that holds blanks", code=2)
    if (source is None) == (at is None):
        raise CliError("say who sends it, with --from POD, or whom it reaches, with --at POD", code=2)
    if principal and plaintext:
        raise CliError("--as and --plaintext: an identity is shown over mutual TLS only; give one of them", code=2)
    if address and not _is_address(address):
        raise CliError(f"--source-ip {address}: must be an IP address, such as 10.0.0.7", code=2)
    method, url = words if len(words) == 2 else ("GET", words[0])
    request = {"method": method, "url": url, "headers": header_list(header or ())}
    who = As(principal or "", address or "", plaintext, _claims(claims))
    side = _Side(source or at or "", listener or ("inbound" if at else ""), at is not None)
    if filename:
        pod, told = _from_files([*filename, *more], namespace or "default", side, request, who)
    else:
        pod, told = _from_mesh(connect(kubeconfig, context), namespace, side, request, who)
    choose(output, told, lambda: print("\n".join(lines(told, pod, side.reached))))
    return 0


class _Side(NamedTuple):
    """Whom the first question is put to. ``reached``: by others, so that nobody else has to be asked."""

    pod: str
    listener: str
    reached: bool


def _is_address(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _claims(text: str | None) -> dict[str, Any] | None:
    import json

    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as wrong:
        raise CliError(f"--claims: must be JSON: {wrong}", code=2) from None
    if not isinstance(found, dict):
        raise CliError('--claims: must be a JSON object, such as {"iss": "https://issuer", "sub": "jo"}', code=2)
    return found


def _apart(words: list[str]) -> tuple[list[str], list[str]]:
    """The request, and the files that ``-f a.yml b.yml`` left among its words, before or after it."""
    from pathlib import Path

    files = [word for word in words if "://" not in word and (word.endswith((".yml", ".yaml", ".json")) or Path(word).exists())]
    return [word for word in words if word not in files], files


def header_list(given: Sequence[str], option: str = "-H") -> dict[str, list[str]]:
    """``name: value`` lines as a mapping. Raises ``CliError``."""
    found: dict[str, list[str]] = {}
    for line in given:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise CliError(f"{option} {line}: must be 'name: value'", code=2)
        found.setdefault(name.strip(), []).append(value.strip())
    return found


def _from_files(
    files: Sequence[str], namespace: str, side: _Side, request: dict[str, Any], who: As
) -> tuple[str, dict[str, Any]]:
    from control.cli.callee import add_callees
    from control.cli.offline import Decider, read

    decider = Decider.of(read(files, namespace))
    proxy = decider.proxy(side.pod, namespace, "--at" if side.reached else "--from")
    told = decider.decide(proxy, who.into(request), side.listener or None)
    add_callees(told, request, who, decider.ask)
    return f"{proxy.namespace}/{proxy.pod}, by the files", told


def _from_mesh(api: Api, namespace: str | None, side: _Side, request: dict[str, Any], who: As) -> tuple[str, dict[str, Any]]:
    from control.cli.callee import add_callees
    from control.cli.proxies import pod_name

    def ask(space: str, name: str, asked: dict[str, Any], listener: str) -> dict[str, Any]:
        return _asked(api, space, name, asked, listener)

    space, name = pod_name(side.pod, namespace or api.target.namespace)
    try:
        told = ask(space, name, who.into(request), side.listener)
    except _Away as away:
        # Nobody of that name in this namespace; a name that only one sidecar has anywhere needs no namespace.
        same = [one for one in api.request("GET", "/mesh/v1/proxies")["proxies"] if one["name"] == name]
        if len(same) != 1 or namespace is not None:
            raise CliError(f"{away}; `meshctl proxy-status` lists those that are") from None
        space = same[0]["namespace"]
        told = ask(space, name, who.into(request), side.listener)
    add_callees(told, request, who, ask)
    return f"{space}/{name}", told


class _Away(CliError):
    """No such sidecar is connected."""


def _asked(api: Api, space: str, name: str, asked: dict[str, Any], listener: str) -> dict[str, Any]:
    """By POST: a URL may be logged, and there may be a token in the question."""
    from urllib.parse import quote

    from control.client.api import ApiError

    args = {**asked, "listener": listener} if listener else asked
    try:
        found: dict[str, Any] = api.request(
            "POST", f"/mesh/v1/proxies/{quote(space)}/{quote(name)}/query", body={"verb": "explain", "args": args}
        )
    except ApiError as refused:
        if refused.code == 404:
            raise _Away(f"no sidecar {space}/{name} is connected") from None
        if refused.code in (422, 504):
            raise CliError(str(refused)) from None
        raise
    return found
