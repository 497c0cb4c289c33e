"""Analysis, rules of one VirtualService: those that no request ever reaches. Codes IST0130, IST0131.

In: a scene. Out: findings. A match covers another if every request of the other is one of its own; what is not sure is not
said. Semantics A1: first match wins, matches of a list are alternatives, conditions of a match hold together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene
from control.resources.values import compile_regex
from control.resources.virtual_service import HTTPMatchRequest, StringMatch, VirtualService
from control.world.config import gateway_name

__all__ = ["covers", "reach"]

_EVERYTHING = HTTPMatchRequest()


def reach(scene: Scene) -> Iterator[Finding]:
    for vs in scene.all("VirtualService"):
        yield from _rules(vs)


def _rules(vs: VirtualService) -> Iterator[Finding]:
    namespace, subject = vs.metadata.namespace, Subject.of(vs)
    earlier: list[tuple[str, HTTPMatchRequest]] = []
    for index, rule in enumerate(vs.spec.http):
        rule_at = f"http[{index}]"
        matches = rule.match or (_EVERYTHING,)
        lost: list[tuple[str, str]] = []
        for number, match in enumerate(matches):
            at = f"{rule_at}.match[{number}]" if rule.match else rule_at
            by = next((name for name, other in earlier if covers(other, match, namespace)), None)
            if by is not None:
                lost.append((at, by))
            if rule.delegate is None:  # which of its requests a delegate takes is the delegate's own business
                earlier.append((at, match))
        before = [by for _, by in lost if not by.startswith(f"{rule_at}.") and by != rule_at]
        if len(lost) == len(matches) and len(before) == len(lost):
            others = " and ".join(dict.fromkeys(before))
            message = f"VirtualService rule {rule_at} not used: {others} takes all its requests. Move it before, or remove it."
            yield found("IST0130", subject, f"spec.{rule_at}", message)
            continue
        for at, by in lost:
            message = f"match is not used: {by} takes all its requests. Move it before, or remove it."
            yield found("IST0131", subject, f"spec.{at}", message)


def covers(wide: HTTPMatchRequest, narrow: HTTPMatchRequest, namespace: str) -> bool:
    """Whether every request that ``narrow`` matches is matched by ``wide``; False also where that cannot be told."""
    if not _static(wide, narrow, namespace):
        return False
    if wide.ignore_uri_case != narrow.ignore_uri_case and not _anything(wide.uri, path=True):
        if narrow.ignore_uri_case or not _test(wide.uri, narrow.uri, path=True, fold=True):
            return False
    elif not _test(wide.uri, narrow.uri, path=True, fold=wide.ignore_uri_case):
        return False
    if not _test(wide.scheme, narrow.scheme) or not _test(wide.method, narrow.method):
        return False
    if not _test(wide.authority, narrow.authority):
        return False
    if not _all_of(wide.headers, narrow.headers, lower=True) or not _all_of(wide.query_params, narrow.query_params):
        return False
    # "not X" covers "not Y" when X is part of Y.
    theirs = {name.lower(): test for name, test in narrow.without_headers.items()}
    return all(
        name.lower() in theirs and _test(theirs[name.lower()], test, header=True) for name, test in wide.without_headers.items()
    )


def _static(wide: HTTPMatchRequest, narrow: HTTPMatchRequest, namespace: str) -> bool:
    if wide.port and wide.port != narrow.port:
        return False
    if wide.gateways:  # they replace the tests of the source (semantics A1)
        mine = {gateway_name(name, namespace) for name in wide.gateways}
        theirs = {gateway_name(name, namespace) for name in narrow.gateways}
        return bool(theirs) and theirs <= mine
    if narrow.gateways:
        return not wide.source_labels and not wide.source_namespace
    if wide.source_namespace and wide.source_namespace != narrow.source_namespace:
        return False
    return wide.source_labels.items() <= narrow.source_labels.items()


def _anything(test: StringMatch | None, *, path: bool = False) -> bool:
    if test is None or (test.exact is None and test.prefix is None and test.regex is None):
        return True
    return test.regex in (".*", "*") or (path and test.prefix == "/")


def _test(
    wide: StringMatch | None, narrow: StringMatch | None, *, path: bool = False, fold: bool = False, header: bool = False
) -> bool:
    if _anything(wide, path=path):
        return wide is None or not header or narrow is not None
    if wide is None or narrow is None:
        return False

    def folded(text: str | None) -> str | None:
        return text.lower() if fold and text is not None else text

    exact, prefix = folded(narrow.exact), folded(narrow.prefix)
    if wide.exact is not None:
        return exact == folded(wide.exact)
    if wide.prefix is not None:
        start = folded(wide.prefix) or ""
        known = exact if exact is not None else prefix
        return known is not None and known.startswith(start)
    if narrow.regex is not None:
        return narrow.regex == wide.regex
    if narrow.exact is None or wide.regex is None:
        return False
    try:
        return compile_regex(wide.regex).fullmatch(narrow.exact) is not None
    except ValueError:
        return False


def _all_of(wide: Mapping[str, StringMatch], narrow: Mapping[str, StringMatch], lower: bool = False) -> bool:
    theirs = {name.lower() if lower else name: test for name, test in narrow.items()}
    for name, test in wide.items():
        other = theirs.get(name.lower() if lower else name)
        if other is None or not _test(test, other, header=True):
            return False
    return True
