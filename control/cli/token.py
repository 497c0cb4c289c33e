"""``meshctl token``: bearer tokens of the API: make one for a person or a program, list what is out, take one back.

In: verbs under ``token``. Out: the new token alone on stdout (or a kubeconfig with it), or columns.
"""

from __future__ import annotations

from typing import Annotated

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, Output, connect, examples, seconds
from control.identity import ROLES

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Bearer tokens of the API: create, list, revoke.", no_args_is_help=True)
    group.command(
        "create",
        epilog=examples(
            "meshctl token create ci --role edit --ttl 8h",
            "meshctl token create ann --role view --as-kubeconfig > ann.kubeconfig",
        ),
    )(create)
    group.command("list", epilog=examples("meshctl token list", "meshctl token list -o json"))(list_)
    group.command(
        "revoke",
        epilog=examples(
            "meshctl token revoke 3fa94be2c1d0",
            "meshctl token revoke bootstrap       (the kubeconfig's own: a new one is made and written to it)",
        ),
    )(revoke)
    app.add_typer(group, name="token")


def create(
    name: Annotated[str, typer.Argument(help="Who gets it: a person or a program.")],
    role: Annotated[str, typer.Option("--role", help="view, edit or admin.")] = "view",
    ttl: Annotated[str, typer.Option("--ttl", help="How long it is good, such as 30m or 8h.")] = "24h",
    as_kubeconfig: Annotated[bool, typer.Option("--as-kubeconfig", help="Print a kubeconfig with it.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Make a token and print it; it is shown this once."""
    if role not in ROLES:
        raise CliError(f"--role {role}: must be view, edit or admin", code=2)
    lifetime = seconds(ttl, "--ttl")
    api = connect(kubeconfig, context)
    made = api.request("POST", "/mesh/v1/tokens", body={"name": name, "role": role, "ttl": lifetime})
    if as_kubeconfig:
        from control.statedir import kubeconfig_text

        print(kubeconfig_text(api.target.server, api.target.ca.encode(), name, made["token"]), end="")
    else:
        print(made["token"])
    return 0


def list_(output: Output = "table", kubeconfig: Kubeconfig = None, context: Context = None) -> int:
    """Show every token that is out: sidecars' too, never the token itself."""
    from control.cli.out import choose, moment, print_columns

    found = connect(kubeconfig, context).request("GET", "/mesh/v1/tokens")

    def table() -> None:
        rows = [
            (
                row["id"],
                row["holder"],
                row["role"],
                moment(row["created"]),
                "never" if row["expires"] is None else moment(row["expires"]),
                "" if row["revoked"] is None else moment(row["revoked"]),
            )
            for row in found["tokens"]
        ]
        print_columns(("ID", "HOLDER", "ROLE", "CREATED", "EXPIRES", "REVOKED"), rows)

    choose(output, found, table)
    return 0


def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="As `meshctl token list` shows it.")],
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Take a token back; what it has under way ends."""
    import httpx

    row = connect(kubeconfig, context).request("DELETE", f"/mesh/v1/tokens/{httpx.URL(path='/' + token).raw_path[1:].decode()}")
    print(f"token {row['id']} of {row['holder']} revoked")
    if row["id"] == "bootstrap":
        print("a new one is in the state directory's kubeconfig; copies of the old file are no longer good")
    return 0
