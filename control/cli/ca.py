"""``meshctl ca``: the mesh's certificate authority: what there is, rotation of the root, revocation.

In: verbs under ``ca``. Out: columns or JSON; for a rotation a line per step, and what is waited for. What is asked for is done by
control: a command that is interrupted does not stop it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, Output, connect, examples, seconds
from control.cli.out import choose, moment, print_columns, warn

if TYPE_CHECKING:
    from control.client.api import Api

__all__ = ["register"]

PAUSE = 0.2  # seconds between looks at a rotation
SPREAD = 5.0  # seconds that a revocation has to be confirmed by every sidecar before we say by whom it is not
STEPS = {
    "distributing": "every sidecar learns to trust both roots",
    "replacing": "certificates are issued under the new root",
    "none": "the old root is trusted no longer",
}
From = Annotated[
    Path | None, typer.Option("--from", metavar="DIR", help="Files of the new authority, named as Istio's, on control's machine.")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The mesh's certificate authority: status, rotation, revocation.", no_args_is_help=True)
    group.command("status", epilog=examples("meshctl ca status", "meshctl ca status -o json"))(status)
    group.command("list", epilog=examples("meshctl ca list", "meshctl ca list -o json"))(list_)
    group.command(
        "rotate", epilog=examples("meshctl ca rotate", "meshctl ca rotate --status", "meshctl ca rotate --from /etc/new-ca")
    )(rotate)
    group.command(
        "revoke",
        epilog=examples(
            "meshctl ca revoke 3f2a9c0d…               (one certificate; its sidecar gets another, with a new key)",
            "meshctl ca revoke default/book-service    (an identity: nobody believes it until it is restored)",
            "meshctl ca revoke --list",
        ),
    )(revoke)
    group.command("restore", epilog=examples("meshctl ca restore default/book-service"))(restore)
    app.add_typer(group, name="ca")


def status(output: Output = "table", kubeconfig: Kubeconfig = None, context: Context = None) -> int:
    """Show roots, issuer, certificates and where a rotation stands."""
    found = connect(kubeconfig, context).request("GET", "/mesh/v1/ca")

    def table() -> None:
        rows = [["root", root, "issues" if root["issues"] else "trusted"] for root in found["roots"]]
        if found["issuer"]["intermediate"]:
            rows.append(["issuer", found["issuer"], "intermediate"])
        print_columns(
            ["KIND", "SUBJECT", "FINGERPRINT", "EXPIRES", "STATE"],
            [[kind, one["subject"], one["fingerprint"][:16], moment(one["notAfter"]), state] for kind, one, state in rows],
        )
        count, revoked = found["certificates"], found["revoked"]
        soonest = "" if count["soonestExpiry"] is None else f", the next expires {moment(count['soonestExpiry'])}"
        print(f"\ntrust domain:  {found['trustDomain']}")
        print(f"certificates:  {count['active']} active{soonest}; {count['revoked']} revoked")
        print(f"lifetime:      {_span(found['certificateTtl'])}")
        serials, names = int(revoked["serials"]), len(revoked["identities"])
        print(f"revoked:       {serials} serial{'' if serials == 1 else 's'}, {names} identit{'y' if names == 1 else 'ies'}")
        print(f"rotation:      {_standing(found['rotation'])}")
        for one in found["rotation"]["waiting"]:
            print(f"  waiting: {one}")

    choose(output, found, table)
    warn(found["warnings"])
    return 0


def list_(output: Output = "table", kubeconfig: Kubeconfig = None, context: Context = None) -> int:
    """Show every certificate that has not expired, newest first."""
    found = connect(kubeconfig, context).request("GET", "/mesh/v1/ca/certificates")["certificates"]

    def table() -> None:
        if not found:
            print("no certificates")
            return
        print_columns(
            ["SERIAL", "IDENTITY", "POD", "ISSUED", "EXPIRES", "STATE"],
            [
                [
                    one["serial"],
                    one["identity"],
                    f"{one['pod']}.{one['namespace']}",
                    moment(one["issued"]),
                    moment(one["expires"]),
                    f"revoked ({one['revoked']})" if one["revoked"] else "active" if one["trusted"] else "root dropped",
                ]
                for one in found
            ],
        )

    choose(output, found, table)
    return 0


def rotate(
    given: From = None,
    force: Annotated[bool, typer.Option("--force", help="Wait for nobody who is away, and not long for others.")] = False,
    status_: Annotated[bool, typer.Option("--status", help="Only say where a rotation stands.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to watch; the rotation goes on without us.")] = "10m",
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Replace the root: trust both, issue under the new one, drop the old one. No request fails meanwhile.

    Each step waits until every sidecar is ready for it. Sidecars that are not connected are waited for until their certificate
    expires, or their Pod is deleted, or --force is given. Copies of the kubeconfig and of ca/root.pem that were made before are
    no longer good afterwards.
    """
    patience = seconds(timeout, "--timeout")
    api = connect(kubeconfig, context)
    if status_:
        if given or force:
            raise CliError("--status goes with neither --from nor --force", code=2)
        found = api.request("GET", "/mesh/v1/ca/rotation")

        def table() -> None:
            print(_standing(found))
            for one in found["waiting"]:
                print(f"  waiting: {one}")

        choose(output, found, table)
        return 0
    body = {"from": str(given.absolute()) if given else "", "force": force}
    api.request("POST", "/mesh/v1/ca/rotation", body=body)
    return _watch(api, patience, lambda: connect(kubeconfig, context))


def _watch(api: Api, patience: float, again: Any) -> int:
    """Say what happens until it is over. ``again`` connects anew: control's certificate comes under the new root on the way."""
    from control.client.api import Unreachable

    deadline = time.monotonic() + patience
    said: tuple[str, list[str]] = ("", [])
    try:
        while True:
            try:
                found = api.request("GET", "/mesh/v1/ca/rotation")
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE)
                api = again()
                continue
            if found["phase"] != said[0]:
                print(STEPS[found["phase"]], flush=True)
            for one in found["waiting"]:
                if one not in said[1]:
                    print(f"  waiting: {one}", flush=True)
            said = (found["phase"], found["waiting"])
            if found["phase"] == "none":
                print("root rotated")
                return 0
            if time.monotonic() > deadline:
                raise CliError("still under way, and goes on: see `meshctl ca rotate --status`")
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        raise CliError("the rotation goes on without us: see `meshctl ca rotate --status`", code=130) from None


def revoke(
    subject: Annotated[
        str | None, typer.Argument(metavar="SERIAL|IDENTITY", help="A serial, NAMESPACE/SERVICE-ACCOUNT or spiffe://…")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, also for a gateway's or the mesh's own.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Only show what is revoked.")] = False,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Take a certificate or an identity back: every sidecar refuses it from then on, and closes its connections."""
    api = connect(kubeconfig, context)
    if list_:
        if subject:
            raise CliError("--list shows everything: leave the name out", code=2)
        return _revoked(api, output)
    if not subject:
        raise CliError("name a serial or an identity; `meshctl ca list` shows both", code=2)
    found = _revoke(api, subject, yes)
    if "serial" in found:
        print(f"certificate {found['serial']} of {found['identity']} (pod {found['pod']}) revoked")
    else:
        print(f"{found['identity']} revoked ({found['certificates']} certificates)")
    return _spread(api)


def _revoke(api: Api, subject: str, yes: bool) -> Any:
    import sys

    from control.client.api import ApiError

    try:
        return api.request("POST", "/mesh/v1/ca/revocations", body={"subject": subject, "yes": yes})
    except ApiError as refused:
        if refused.reason != "NeedsConfirmation":
            raise
        if not sys.stdin.isatty():
            raise CliError(str(refused)) from None
        print(str(refused).partition(": confirm with")[0])
        if not typer.confirm("Revoke it?"):
            raise CliError("nothing was revoked") from None
    return api.request("POST", "/mesh/v1/ca/revocations", body={"subject": subject, "yes": True})


def restore(
    identity: Annotated[str, typer.Argument(metavar="IDENTITY", help="NAMESPACE/SERVICE-ACCOUNT or spiffe://…")],
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Believe a revoked identity again, with the certificates that it had."""
    api = connect(kubeconfig, context)
    found = api.request("DELETE", "/mesh/v1/ca/revocations", params={"identity": identity})
    print(f"{found['identity']} restored")
    return _spread(api)


def _spread(api: Api) -> int:
    """Wait until every connected sidecar knows."""
    deadline = time.monotonic() + SPREAD
    while (found := api.request("GET", "/mesh/v1/ca/revocations"))["pending"]:
        if time.monotonic() > deadline:
            for name, why in sorted(found["pending"].items()):
                print(f"  {name} {why}")
            raise CliError(f"{len(found['pending'])} of {found['connected']} sidecars do not know yet")
        time.sleep(0.02)
    print(f"all {found['connected']} connected sidecars know")
    return 0


def _revoked(api: Api, output: str) -> int:
    found = api.request("GET", "/mesh/v1/ca/revocations")

    def table() -> None:
        rows = [["identity", one["identity"], "", moment(one["revoked"])] for one in found["identities"]]
        rows += [["serial", one["identity"], one["serial"], moment(one["revoked"])] for one in found["serials"]]
        if rows:
            print_columns(["KIND", "IDENTITY", "SERIAL", "REVOKED"], rows)
        else:
            print("nothing is revoked")

    choose(output, {"identities": found["identities"], "serials": found["serials"]}, table)
    return 0


def _standing(found: Any) -> str:
    if found["phase"] != "none":
        return f"{found['phase']}: {STEPS[found['phase']]}{' (by force)' if found['force'] else ''}"
    return f"none; the last one ended {moment(found['rotated'])}" if found["rotated"] else "none"


def _span(lasting: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if lasting >= size and lasting % size == 0 and (lasting > size or unit != "d"):
            return f"{lasting / size:g}{unit}"
    return f"{lasting:g}s"
