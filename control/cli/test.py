"""``meshctl test CASES -f FILES``: unit tests of a mesh's configuration, offline.

In: a table of requests and expected decisions, and the resources that are to take them. Out: a line per case, what differs where
one fails, a JUnit file for CI. The decisions are the sidecar's own code's, as in ``explain -f``. Exit 1 when a case fails, 2 when
a file cannot be used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from control.cli.errors import CliError
from control.cli.options import Files, Namespace, Output, examples

if TYPE_CHECKING:
    from control.cli.cases import Case, Difference
    from control.cli.offline import Decider
    from control.translate.proxy import ProxyId

__all__ = ["register"]

FORMAT = """Check a table of requests against the decisions that files lead to; no mesh is needed.

CASES is YAML:

    cases:
    - name: jo sees the new version
      from: book-service         # a pod or Deployment of the files; or
                                 # {namespace: shop, labels: {app: web}}; or
                                 # {gateway: NAME}; else any sidecar
      request:
        method: GET
        url: http://rating:8080/rate/1
        headers: {x-user: jo}
      expect:                    # only what is given is compared
        subset: version-v2       # host, port, cluster, endpoints,
        timeout: 2s              # weights, retries, delay, abort, mirrors,
        path: /v2/rate/1         # authority, requestHeaders, responseHeaders
    - name: the old path moved
      request: {url: "http://rating:8080/old"}
      expect:                    # status, body, decision, rule
        redirect: http://rating:8080/new
    - name: strangers may not write
      at: rating-v1              # its door alone; with from, both sides
      as: default/web            # who comes in; or plaintext: true
      request: {method: PUT, url: "http://rating:8080/rate/1"}
      expect: {status: 403, reason: no ALLOW policy matched}

docs/testing-your-config.md has every key."""


class Result(NamedTuple):
    """``problem``: why there is no decision at all."""

    case: Case
    differences: list[Difference]
    told: dict[str, Any]
    problem: str

    @property
    def passed(self) -> bool:
        return not self.differences and not self.problem


def register(app: typer.Typer) -> None:
    app.command(
        "test",
        help="\b\n" + FORMAT,
        short_help="Check a table of requests against the decisions that files lead to.",
        epilog=examples("meshctl test cases.yaml -f manifests/", "meshctl test cases.yaml -f manifests/ --junit report.xml"),
    )(test)


def test(
    cases: Annotated[
        list[str], typer.Argument(metavar="CASES...", help="Files of cases, or - for stdin; files without cases are as after -f.")
    ],
    filename: Files = None,
    namespace: Namespace = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write a JUnit XML report here.")] = None,
    output: Output = "table",
) -> int:
    from control.cli.cases import load
    from control.cli.offline import Decider, read
    from control.cli.out import choose

    if not filename:
        raise CliError("must specify -f FILE: the resources that decide", code=2)
    more = [source for source in cases[1:] if not _holds_cases(source)]
    cases, filename = [source for source in cases if source not in more], [*filename, *more]
    if "-" in cases and "-" in filename:
        raise CliError("- can be read once only: as CASES or as -f", code=2)
    space = namespace or "default"
    suites = [(source, load(source, _text(source))) for source in cases]
    try:
        decider = Decider.of(read(filename, space))
    except CliError as problem:
        problem.code = 2
        raise
    results = [(source, [_run(decider, case, space) for case in found]) for source, found in suites]
    flat = [result for _, found in results for result in found]
    failed = [result for result in flat if not result.passed]
    if junit is not None:
        _write_junit(junit, results)
    choose(output, [_plain(source, one) for source, found in results for one in found], lambda: _table(flat))
    return 1 if failed else 0


def _holds_cases(source: str) -> bool:
    """Whether a later word is another file of cases, or what a shell made of ``-f *.yml``."""
    from control.yamltext import YamlProblem, documents

    if source == "-":
        return True
    if Path(source).is_dir():
        return False
    try:
        found = documents(_text(source), aliases=True)
    except YamlProblem:
        return False  # its reader says what is wrong
    return any(isinstance(one, dict) and "cases" in one and "apiVersion" not in one for one in found)


def _text(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text()
    except (OSError, UnicodeDecodeError) as failure:
        why = failure.strerror if isinstance(failure, OSError) else "is not UTF-8"
        raise CliError(f"{source}: cannot be read: {why}", code=2) from None


def _run(decider: Decider, case: Case, namespace: str) -> Result:
    from control.cli.callee import As, add_callees
    from control.cli.cases import differences

    request = {"method": case.request.method, "url": case.request.url, "headers": case.request.headers}
    who = As(case.as_, case.source_ip, bool(case.plaintext), case.request.claims)
    try:
        proxy = decider.proxy(case.at, namespace, "at") if case.at else _sender(decider, case, namespace)
        listener = case.listener or ("inbound" if case.at else None)
        told = decider.decide(proxy, who.into(request), listener)
        add_callees(told, request, who, decider.ask)
    except CliError as problem:
        return Result(case, [], {}, str(problem))
    return Result(case, differences(case.expect, _whole(told), proxy.namespace), told, "")


def _whole(told: dict[str, Any]) -> dict[str, Any]:
    """What becomes of the request when all sidecars that it may reach refuse it alike: their answer is the client's."""
    reached = [one.get("told", {}) for one in told.get("callees", ())]
    decisions = {one.get("decision") for one in reached}
    if not reached or len(decisions) > 1 or not decisions <= {"denied", "not let in"}:
        return told
    taken = ("decision", "status", "answer", "because")
    return {
        **{key: value for key, value in told.items() if key not in taken},
        **{k: reached[0][k] for k in taken if k in reached[0]},
    }


def _sender(decider: Decider, case: Case, namespace: str) -> ProxyId:
    sender = case.from_
    space = sender.namespace or namespace
    if sender.pod:
        return decider.proxy(sender.pod, space)
    if sender.gateway == "*":
        return decider.proxy("gateway", space)
    if sender.gateway:
        return decider.gateway(sender.gateway, space)
    return decider.client(space, sender.labels)


def _table(results: Sequence[Result]) -> None:
    for one in results:
        print(f"{'ok   ' if one.passed else 'FAIL '} {one.case.name}")
        for line in _why(one):
            print(f"        {line}")
    failed = sum(not one.passed for one in results)
    print(f"\n{len(results) - failed} passed" + (f", {failed} failed" if failed else ""))


def _why(one: Result) -> list[str]:
    """What differs, and the rules that led there."""
    from control.cli.decision import entry

    if one.passed:
        return []
    if one.problem:
        return [one.problem]
    found = [str(difference) for difference in one.differences]
    for step in one.told.get("steps", ()):
        if step["what"] == "route" and step["reason"] != "a route before it matched":
            verb = "taken" if step["taken"] else "not taken"
            found.append(f"{verb}: {step['source'] or step['name']}: {step['reason']}")
    for told in (one.told, *(callee.get("told", {}) for callee in one.told.get("callees", ()))):
        if told.get("authorization") or told.get("tokens") or "refused" in told.get("mtls", {}):
            found += [" ".join(line.split()) for line in entry(told)]
    return found + list(one.told.get("notes", ()))


def _plain(source: str, one: Result) -> dict[str, Any]:
    return {
        "file": source,
        "name": one.case.name,
        "passed": one.passed,
        "problem": one.problem,
        "differences": [difference._asdict() for difference in one.differences],
        "decision": one.told,
    }


def _write_junit(path: Path, results: Sequence[tuple[str, Sequence[Result]]]) -> None:
    from xml.etree import ElementTree as tree

    root = tree.Element("testsuites")
    for source, found in results:
        bad, broken = sum(bool(one.differences) for one in found), sum(bool(one.problem) for one in found)
        counts = {"tests": str(len(found)), "failures": str(bad), "errors": str(broken)}
        suite = tree.SubElement(root, "testsuite", {"name": source, **counts})
        for one in found:
            case = tree.SubElement(suite, "testcase", {"classname": source, "name": one.case.name})
            if one.problem:
                tree.SubElement(case, "error", {"message": one.problem})
            elif one.differences:
                failure = tree.SubElement(case, "failure", {"message": str(one.differences[0])})
                failure.text = "\n".join(_why(one))
    try:
        tree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as failed:
        raise CliError(f"--junit {path}: cannot be written: {failed.strerror}", code=2) from None
