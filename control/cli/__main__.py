"""meshctl's entry: collect the verbs, run one, turn every failure into one line and an exit code.

In: argv. Out: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted. To add verbs, write ``control/cli/<family>.py`` with
``register(app)`` and name it in ``FAMILIES``.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

try:
    import typer

    from control.cli.errors import CliError
    from control.cli.options import opened
except KeyboardInterrupt:  # these take a while, and nobody wants to read where a Ctrl-C found them
    sys.exit(130)

__all__ = ["FAMILIES", "build", "main"]

# Typer brings click along in some versions and has it built in in others; its own exceptions lead to the right one.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

FAMILIES = (
    "mesh",  # demo, run
    "apply",  # apply, diff
    "delete",
    "get",  # get, describe
    "label",  # label, annotate
    "wait",
    "logs",
    "tap",
    "tunnels",  # exec, attach, port-forward: refused with the reason
    "proxies",  # proxy-status, proxy-config
    "ca",
    "standalone",  # proxy
    "analyze",  # analyze, validate
    "authz",  # x authz check
    "mtls",  # x mtls report
    "dashboard",
    "token",  # token create, list, revoke
    "explain",
    "test",
    "top",
    "trace",
    "version",
    "why",
    "install",  # also manifest generate, upgrade
    "uninstall",
    "verify_install",  # also x precheck
    "kube_inject",
    "check_inject",  # x check-inject
)


def build() -> typer.Typer:
    """The whole command. Families that are not there (a trimmed installation) are an error: the list is the contract."""
    app = typer.Typer(
        name="meshctl",
        help="Run and steer a service mesh. Verbs and flags are kubectl's and istioctl's where those have them.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    experimental = typer.Typer(help="Verbs whose words may still change (also: x).", no_args_is_help=True)
    experimental.callback()(lambda: None)
    for family in FAMILIES:
        module = import_module(f"control.cli.{family}")
        module.register(app)
        if hasattr(module, "register_experimental"):
            module.register_experimental(experimental)
    if experimental.registered_commands or experimental.registered_groups:
        app.add_typer(experimental, name="experimental")
        app.add_typer(experimental, name="x", hidden=True)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"meshctl {version('pymesh')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show this program's version and end.")
    ] = False,
) -> None:
    """What may stand before a verb."""


def main(argv: list[str] | None = None) -> int:
    """Run one command line. Returns the exit code (a console script exits with it)."""
    try:
        outcome = build()(args=argv, prog_name="meshctl", standalone_mode=False)
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except typer.Exit as end:
        return end.exit_code
    except UsageError as wrong:
        return _misused(wrong)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CliError as failed:
        print(failed.line, file=sys.stderr)
        return failed.code
    except Exception as failure:  # the known refusals; imported only now, because they cost start-up time
        line = _line(failure)
        if line is None:
            raise
        print(line, file=sys.stderr)
        return 1
    finally:
        while opened:
            opened.pop().close()


def _misused(wrong: Any) -> int:
    """One line for wrong usage; a command group without a verb has printed its help already and has no message."""
    said = wrong.format_message()  # a missing argument has no ``message``: its line is made of the parameter
    if said:
        at = f" (see `{wrong.ctx.command_path} --help`)" if wrong.ctx is not None else ""
        print(f"error: {said.removesuffix('.')}{at}", file=sys.stderr)
    return 2


def _line(failure: Exception) -> str | None:
    from control.client.api import ApiError, Unreachable
    from control.client.kubeconfig import BadKubeconfig

    if isinstance(failure, ApiError):
        return f"Error from server ({failure.reason}): {failure}" if failure.reason else f"Error from server: {failure}"
    if isinstance(failure, Unreachable | BadKubeconfig):
        return f"error: {failure}"
    return None


if __name__ == "__main__":
    sys.exit(main())
