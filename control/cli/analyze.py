"""``meshctl analyze`` and ``validate``: what is wrong in a mesh, or in files before they are applied.

In: files, or the mesh that the kubeconfig names, or both. Out: istioctl's lines and exit codes (79: issues at or above the
threshold). Files are judged here, a mesh by control, with the same checks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import AllNamespaces, Context, Files, Kubeconfig, More, Namespace, also, connect, examples

if TYPE_CHECKING:
    from control.analyze.finding import Finding
    from control.cli.offline import Loaded

__all__ = ["FOUND_ISSUES", "register"]

FOUND_ISSUES = 79  # istioctl's exit code
DOCUMENTATION = "https://istio.io/latest/docs/reference/config/analysis"


def register(app: typer.Typer) -> None:
    app.command(
        "analyze",
        epilog=examples(
            "meshctl analyze                                        (the mesh, namespace default)",
            "meshctl analyze -A --failure-threshold Warning",
            "meshctl analyze -f manifests/                          (files only: no mesh needs to run)",
            "meshctl analyze -f rules.yml --use-kube                (the mesh as it would be with these files)",
            'meshctl analyze -S "IST0103=Pod *.testing"',
            "meshctl analyze -L",
        ),
    )(analyze)
    app.command("validate", epilog=examples("meshctl validate -f virtual-service-v1.yml"))(validate)


def analyze(
    files: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="The same as -f.")] = None,
    filename: Files = None,
    use_kube: Annotated[
        bool | None, typer.Option("--use-kube/--no-use-kube", "-k", help="Look at the mesh; without files that is the default.")
    ] = None,
    namespace: Namespace = None,
    all_namespaces: AllNamespaces = False,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="Directories with all that is under them.")] = False,
    output: Annotated[str, typer.Option("-o", "--output", help="table (istioctl's lines), json or yaml.")] = "table",
    failure_threshold: Annotated[str, typer.Option(help="Exit code 79 from this level on: Error, Warning or Info.")] = "Error",
    output_threshold: Annotated[str, typer.Option(help="Show what is of this level or worse.")] = "Info",
    suppress: Annotated[
        list[str] | None, typer.Option("-S", "--suppress", help='Leave out: "CODE=KIND NAME.NAMESPACE", * for any; repeatable.')
    ] = None,
    list_analyzers: Annotated[bool, typer.Option("-L", "--list-analyzers", help="Show the checks and their codes.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Find mistakes: missing references, rules that are never used, subsets without pods, conflicts, and more."""
    from control.analyze import matches_suppression

    if list_analyzers:
        return _list(output)
    shown, failing = _level(output_threshold, "--output-threshold"), _level(failure_threshold, "--failure-threshold")
    given = _files([*(files or ()), *(filename or ())], recursive)
    loaded = None
    if given:
        from control.cli.offline import read

        loaded = read(given, namespace or "default")
    if use_kube is False and loaded is None:
        raise CliError("--no-use-kube: name the files to look at with -f", code=2)
    if loaded is None or use_kube:
        where, found = _ask(loaded, namespace, all_namespaces, kubeconfig, context)
    else:
        where, found = ", ".join(given), _judge(loaded)
    try:
        found = [one for one in found if not any(matches_suppression(one, text) for text in suppress or ())]
        if not found:  # a mistyped suppression is told even when there is nothing to suppress
            for text in suppress or ():
                matches_suppression(_nobody(), text)
    except ValueError as wrong:
        raise CliError(f"--suppress {wrong}", code=2) from None
    _print([one for one in found if _rank(one.level) <= shown], output, where, loaded)
    if any(_rank(one.level) <= failing for one in found):
        more = f"See {DOCUMENTATION} for more information about causes and resolutions."
        raise CliError(f"Analyzers found issues when analyzing {where}.\n{more}", code=FOUND_ISSUES, prefix="Error: ")
    return 0


def _nobody() -> Finding:
    from control.analyze.finding import Finding

    return Finding("", "Info", "", "", "", "", "")


def _rank(level: str) -> int:
    from control.analyze.codes import LEVELS

    return [str(one) for one in LEVELS].index(level)


def _level(text: str, option: str) -> int:
    from control.analyze.codes import LEVELS

    for number, level in enumerate(LEVELS):
        if level.lower() == text.lower():
            return number
    raise CliError(f"{option} {text}: must be Error, Warning or Info", code=2)


def _files(given: Sequence[str], recursive: bool) -> list[str]:
    from pathlib import Path

    if not recursive:
        return list(given)
    found: list[str] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = sorted(str(one) for one in path.rglob("*") if one.suffix in (".yml", ".yaml", ".json") and one.is_file())
            if not inside:
                raise CliError(f"{name}: no .yml, .yaml or .json file in or under this directory")
            found += inside
        else:
            found.append(name)
    return found


def _judge(loaded: Loaded) -> list[Finding]:
    """Files alone."""
    import time

    from control.analyze import Scene
    from control.analyze import analyze as judge
    from control.analyze.scene import Facts
    from control.cli.offline import completed

    return list(judge(Scene.of(completed(loaded.objects), facts=Facts(time.time()))))


def _ask(
    loaded: Loaded | None, namespace: str | None, everywhere: bool, kubeconfig: str | None, context: str | None
) -> tuple[str, list[Finding]]:
    """The mesh, with the files over it."""
    import msgspec

    from control.analyze.finding import Finding

    api = connect(kubeconfig, context)
    space = None if everywhere else namespace or api.target.namespace
    where = f"namespace: {space}" if space is not None else "all namespaces"
    params = {} if space is None else {"namespace": space}
    if loaded is None:
        answer = api.request("GET", "/mesh/v1/analyze", params=params)
    else:
        answer = api.request("POST", "/mesh/v1/analyze", params=params, body={"objects": list(loaded.objects)})
        where = f"{', '.join(dict.fromkeys(loaded.sources.values()))} with {where}"
    return where, msgspec.convert(answer["findings"], list[Finding])


def _print(found: Iterable[Finding], output: str, where: str, loaded: Loaded | None) -> None:
    from control.cli.out import choose

    sources = loaded.sources if loaded is not None else {}
    findings = list(found)
    # istioctl calls its plain lines "log".
    choose("table" if output == "log" else output, [_plain(one, sources) for one in findings], lambda: _lines(findings, sources))
    if not findings and output in ("table", "log"):
        print(f"\u2714 No validation issues found when analyzing {where}.", file=sys.stderr)


def _lines(findings: Sequence[Finding], sources: Any) -> None:
    for one in findings:
        print(one.line(sources.get(one.subject, "")))


def _plain(one: Finding, sources: Any) -> dict[str, Any]:
    """istioctl's keys, and ours beside them."""
    told: dict[str, Any] = {
        "code": one.code,
        "level": one.level,
        "origin": str(one.subject),
        "message": f"{one.path}: {one.message}" if one.path else one.message,
        "path": one.path,
    }
    if one.code.startswith("IST"):
        told["documentationUrl"] = f"{DOCUMENTATION}/{one.code.lower()}/"
    source = sources.get(one.subject)
    if source:
        told["reference"] = source
    return told


def _list(output: str) -> int:
    from control.analyze import CHECKS, CODES
    from control.cli.out import choose, print_columns

    rows = [[check.name, code, CODES[code].level, CODES[code].summary] for check in CHECKS for code in check.codes]
    keys = ("name", "code", "level", "summary")
    found = [dict(zip(keys, row, strict=True)) for row in rows]
    choose(output, found, lambda: print_columns(["CHECK", "CODE", "LEVEL", "WHAT IT FINDS"], rows))
    return 0


def validate(more: More = None, filename: Files = None, namespace: Namespace = None) -> int:
    """Check that files hold valid objects, each by itself; analyze looks at how they fit together."""
    from control.analyze import Scene
    from control.analyze.schema import validation
    from control.cli.offline import read

    loaded = read(also(filename, more), namespace or "default")
    bad: set[str] = set()
    for one in validation(Scene.of(loaded.objects)):
        source = loaded.sources.get(one.subject, "")
        if one.level == "Error":
            bad.add(source)
        print(one.line(source), file=sys.stderr)
    for source in dict.fromkeys(loaded.sources.values()):
        if source not in bad:
            print(f'"{source}" is valid')
    return 1 if bad else 0
