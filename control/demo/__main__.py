"""``python -m control.demo up|detach|stop|run``: what ``meshctl demo`` and ``meshctl run`` become once their options were read.

In: argv. Out: an exit code. A program of its own, so that the process which stays has none of the command line's libraries
in it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from control.demo import launcher
from control.demo.plan import APP_PORT, DEFAULT_BASE, BadPlan
from control.demo.run import Program, run
from control.demo.state import State

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="meshctl", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("up", "detach", "stop", "run"):
        verb = verbs.add_parser(name)
        verb.add_argument("--state", type=Path, default=Path(".mesh"))
        if name in ("up", "detach"):
            verb.add_argument("--base", default=DEFAULT_BASE)
            verb.add_argument("--port", type=int)
            verb.add_argument("--fresh", action="store_true")
            verb.add_argument("--netns", action="store_true")
        if name == "up":
            verb.add_argument("--notify-fd", type=int)
        if name == "run":
            verb.add_argument("--name", required=True)
            verb.add_argument("--namespace", default="default")
            verb.add_argument("--label", action="append", default=[])
            verb.add_argument("--port", type=int, required=True)
            verb.add_argument("--app-port", type=int, default=APP_PORT)
            verb.add_argument("--probe-path", default="")
            verb.add_argument("--no-service", action="store_true")
            verb.add_argument("command", nargs="+")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Dispatch; one line on stderr and 2 for options that cannot be, 130 for a Ctrl-C that nobody was ready for."""
    try:
        # Whoever became us held it back, so that a Ctrl-C during our imports is this exit code and not a traceback.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return _dispatch(_parser().parse_args(argv))
    except BadPlan as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone; the interpreter must not complain about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(given: argparse.Namespace) -> int:
    if given.verb == "stop":
        return launcher.stop(given.state)
    if given.verb == "run":
        mesh = State(given.state).running()
        labels = dict(label.split("=", 1) for label in given.label)
        program = Program(
            state=given.state,
            name=given.name,
            port=given.port,
            command=tuple(given.command),
            labels=labels,
            namespace=given.namespace,
            app_port=given.app_port,
            probe_path=given.probe_path,
            service=not given.no_service,
            netns=mesh is not None and mesh.netns,
        )
        return asyncio.run(run(program))
    options = launcher.Options(given.state, given.base, given.port, given.fresh, given.netns)
    options.addresses  # noqa: B018  it judges base and port before anything is started
    return launcher.detach(options) if given.verb == "detach" else launcher.run(options, given.notify_fd)


if __name__ == "__main__":
    sys.exit(main())
