"""A user's table of requests and expected decisions: its format, and how a decision is held to it.

In: a YAML or JSON document and decisions (the dicts of ``explain``). Out: ``Case``s, or ``CliError`` with the path of every field
that is wrong; ``differences`` between what was expected and what was decided. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from control.cli.errors import CliError
from control.resources.meta import Part, PortNumber
from control.resources.shape import build
from control.resources.values import parse_duration
from control.world.hosts import expand

__all__ = ["Case", "Difference", "Sender", "differences", "load"]

NOT_SAID: Any = msgspec.UNSET
DOMAIN = "cluster.local"


class Request(Part, frozen=True, kw_only=True):
    """``headers``: a text, or a list of texts for a header that is sent more than once. ``claims``: of a token that is taken as
    verified, where somebody reads tokens.
    """

    method: str = "GET"
    url: str
    headers: dict[str, Any] = {}
    claims: dict[str, Any] | None = None


class Sender(Part, frozen=True, kw_only=True):
    """Who sends: a pod or workload of the files, a Gateway, or any sidecar of a namespace with these labels."""

    exclusive = (("pod", "gateway", "labels"),)

    pod: str = ""
    gateway: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}


class Redirect(Part, frozen=True, kw_only=True):
    location: str | None = None
    status: int | None = None


class Retries(Part, frozen=True, kw_only=True):
    """``retry_on``: as in a VirtualService, or a list."""

    attempts: int | None = None
    per_try_timeout: str | None = None
    retry_on: Any = None


class Fault(Part, frozen=True, kw_only=True):
    """``after`` is of delays, ``status`` of aborts."""

    after: str | None = None
    status: int | None = None
    percent: float | None = None


class Expect(Part, frozen=True, kw_only=True):
    """Only what is given is compared. ``none`` says that there is no timeout, retries, delay, abort or mirrors."""

    decision: str | None = None
    status: int | None = None
    body: str | None = None
    reason: str | None = None
    rule: str | None = None
    cluster: str | None = None
    host: str | None = None
    subset: str | None = None
    port: PortNumber | None = None
    weights: dict[str, float] | None = None
    endpoints: tuple[str, ...] | None = None
    path: str | None = None
    authority: str | None = None
    request_headers: dict[str, Any] | None = None
    response_headers: dict[str, Any] | None = None
    redirect: Any = NOT_SAID
    timeout: Any = NOT_SAID
    retries: Any = NOT_SAID
    delay: Any = NOT_SAID
    abort: Any = NOT_SAID
    mirrors: Any = NOT_SAID


class Case(Part, frozen=True, kw_only=True):
    """One request and what is to become of it. ``at``: only this pod's door is asked. ``as_``: the caller's identity there."""

    exclusive = (("from", "at"), ("as", "plaintext"))

    name: str = ""
    from_: Any = None
    at: str = ""
    as_: str = ""
    plaintext: bool | None = None
    source_ip: str = ""
    listener: str = ""
    request: Request
    expect: Expect


class Cases(Part, frozen=True, kw_only=True):
    cases: tuple[Case, ...]


class Difference(NamedTuple):
    path: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, got {self.actual}"


# -- reading -------------------------------------------------------------------------------------------------------------


def load(source: str, text: str) -> tuple[Case, ...]:
    """The cases of a file. Raises ``CliError`` (exit code 2) with every problem, a line each."""
    from control.yamltext import YamlProblem, documents

    try:
        found_documents = documents(text, aliases=True)
    except YamlProblem as failure:
        raise CliError(f"error parsing {source}: {failure}", code=2) from None
    if len(found_documents) > 1:
        raise CliError(f"{source}: holds several documents; cases are one", code=2)
    shape = build(found_documents[0] if found_documents else None, Cases)
    problems = [f"{source}: {problem}" for problem in shape.problems]
    found: tuple[Case, ...] = shape.value.cases if shape.value is not None else ()
    if not problems:
        for index, case in enumerate(found):
            problems += [f"{source}: {path}: {message}" for path, message in _faults(case, f"cases[{index}]")]
        if not found:
            problems.append(f"{source}: cases: must hold at least one case")
    if problems:
        raise CliError("\nerror: ".join(problems), code=2)
    return tuple(_named(case, index) for index, case in enumerate(found))


def _named(case: Case, index: int) -> Case:
    sender = case.from_ if isinstance(case.from_, Sender) else _sender(case.from_)
    name = case.name or f"{case.request.method} {case.request.url} (cases[{index}])"
    return msgspec.structs.replace(case, name=name, from_=sender)


def _sender(value: Any) -> Sender:
    if isinstance(value, str):
        return Sender(gateway="*") if value == "gateway" else Sender(pod=value)
    found = build(value if value is not None else {}, Sender).value
    assert isinstance(found, Sender)
    return found


_NESTED: dict[str, tuple[type[Part], type]] = {
    "redirect": (Redirect, str),
    "retries": (Retries, int),
    "delay": (Fault, str),
    "abort": (Fault, int),
}


def _faults(case: Case, at: str) -> Iterator[tuple[str, str]]:
    """What the types alone do not say."""
    if case.from_ is not None and not isinstance(case.from_, str):
        for problem in build(case.from_, Sender).problems:
            yield f"{at}.from{'.' if problem.path else ''}{problem.path}", problem.message
    if not any(getattr(case.expect, name) not in (None, NOT_SAID) for name in case.expect.__struct_fields__):
        yield f"{at}.expect", "is empty: say what is to become of the request"
    for name, (cls, short) in _NESTED.items():
        value = getattr(case.expect, name)
        if value is NOT_SAID or value == "none" or (type(value) is short and name != "delay"):
            continue
        for problem in build(value, cls).problems:
            hint = "" if problem.path else ', or "none"'
            yield f"{at}.expect.{name}{'.' if problem.path else ''}{problem.path}", problem.message + hint
    for path, text in _durations(case.expect):
        try:
            parse_duration(text)
        except ValueError as wrong:
            yield f"{at}.expect.{path}", str(wrong)
    mirrors = case.expect.mirrors
    if mirrors is not NOT_SAID and mirrors != "none" and not isinstance(mirrors, dict):
        yield f"{at}.expect.mirrors", 'must be percentages by host or subset, or "none"'
    for name in ("weights", "mirrors"):
        shares = getattr(case.expect, name)
        for key, share in shares.items() if isinstance(shares, dict) else ():
            if isinstance(share, bool) or not isinstance(share, (int, float)) or share < 0:
                yield f"{at}.expect.{name}[{key}]", "must be a number that is not negative"


def _durations(expect: Expect) -> Iterator[tuple[str, str]]:
    if expect.timeout is not NOT_SAID and expect.timeout != "none":
        yield "timeout", str(expect.timeout)
    for name, key in (("retries", "perTryTimeout"), ("delay", "after")):
        value = getattr(expect, name)
        if isinstance(value, dict) and isinstance(value.get(key), str):
            yield f"{name}.{key}", value[key]


# -- comparing -----------------------------------------------------------------------------------------------------------


def differences(expect: Expect, told: dict[str, Any], namespace: str) -> list[Difference]:
    """What was decided otherwise than expected; short host names are completed with ``namespace``."""
    found: list[Difference] = []
    for name, judge in _JUDGES.items():
        value = getattr(expect, name)
        if value is not None and value is not NOT_SAID:
            found += judge(value, told, namespace)
    return found


def _say(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_say(item)}" for key, item in value.items())
    return ", ".join(_say(item) for item in value) if isinstance(value, (list, tuple)) else str(value)


def _plain(path: str, expected: Any, actual: Any) -> list[Difference]:
    return [] if expected == actual else [Difference(f"expect.{path}", _say(expected), _say(actual))]


def _key(name: str) -> Callable[[Any, dict[str, Any], str], list[Difference]]:
    return lambda value, told, _: _plain(name, value, told.get(name))


def _status(value: int, told: dict[str, Any], namespace: str) -> list[Difference]:
    if "status" not in told:
        return [Difference("expect.status", str(value), "whatever upstream answers: the request is forwarded")]
    return _plain("status", value, told["status"])


def _body(value: str, told: dict[str, Any], namespace: str) -> list[Difference]:
    return _plain("body", value, told.get("answer", {}).get("body", ""))


def _rule(value: str, told: dict[str, Any], namespace: str) -> list[Difference]:
    """The rule's source, whole or without its match, or the name that the rule was given."""
    route = told.get("route", {})
    source = route.get("source", "")
    if value in (source, source.partition(".match[")[0], route.get("name")):
        return []
    return [Difference("expect.rule", value, source or route.get("name") or "none")]


def _parts(destination: dict[str, Any]) -> tuple[str, str, str]:
    """Port, subset and host of a cluster's name."""
    parts = destination["cluster"].split("|")
    return (parts[1], parts[2], parts[3]) if len(parts) == 4 else ("", "", destination["cluster"])


def _destinations(told: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told.get("destinations", [])
    return found


def _every(name: str, of: Callable[[dict[str, Any]], str]) -> Callable[[Any, dict[str, Any], str], list[Difference]]:
    """All destinations must have this value."""

    def judge(value: Any, told: dict[str, Any], namespace: str) -> list[Difference]:
        wanted = expand(str(value), namespace, DOMAIN) if name == "host" else str(value)
        actual = list(dict.fromkeys(of(one) for one in _destinations(told)))
        return [] if actual == [wanted] else [Difference(f"expect.{name}", str(value), _say([one or "(none)" for one in actual]))]

    return judge


def _is(destination: dict[str, Any], name: str, namespace: str) -> bool:
    """Whether a name means this destination: subset, host, host/subset or cluster."""
    _, subset, host = _parts(destination)
    if name in (subset, destination["cluster"]) and name:
        return True
    given, slash, part = name.partition("/")
    return expand(given, namespace, DOMAIN) == host and (not slash or part == subset)


def _weights(value: dict[str, float], told: dict[str, Any], namespace: str) -> list[Difference]:
    found = _destinations(told)
    total = sum(value.values()) or 1
    wanted = {name: 100 * share / total for name, share in value.items()}
    shares = {name: sum(one["percent"] for one in found if _is(one, name, namespace)) for name in value}
    others = [one for one in found if not any(_is(one, name, namespace) for name in value)]
    if not others and all(abs(wanted[name] - shares[name]) < 0.01 for name in value):
        return []
    actual = {_parts(one)[1] or _parts(one)[2]: one["percent"] for one in found}
    return [Difference("expect.weights", _percents(wanted), _percents(actual))]


def _percents(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.4g} %" for name, share in shares.items()) or "none"


def _endpoints(value: tuple[str, ...], told: dict[str, Any], namespace: str) -> list[Difference]:
    """Pods, or addresses where no pod is known, of all destinations; order does not matter."""
    found = [one for destination in _destinations(told) for one in destination.get("endpoints", ())]
    names = sorted({one.get("pod") or one["address"] for one in found})
    addresses = sorted({one["address"] for one in found})
    return [] if sorted(set(value)) in (names, addresses) else [Difference("expect.endpoints", _say(value), _say(names))]


def _sent(name: str) -> Callable[[Any, dict[str, Any], str], list[Difference]]:
    def judge(value: str, told: dict[str, Any], namespace: str) -> list[Difference]:
        actual = list(dict.fromkeys(one.get("forwarded", {}).get(name, "") for one in _destinations(told)))
        return [] if actual == [value] else [Difference(f"expect.{name}", value, _say(actual))]

    return judge


def _request_headers(value: dict[str, Any], told: dict[str, Any], namespace: str) -> list[Difference]:
    """What the mesh sets, and (null) what it removes."""
    found: list[Difference] = []
    for one in _destinations(told):
        forwarded = one.get("forwarded", {})
        for name, wanted in value.items():
            actual = forwarded.get("headersSet", {}).get(name.lower())
            if wanted is None and actual is None and name.lower() in forwarded.get("headersRemoved", ()):
                continue
            if wanted is None or actual != str(wanted):
                said = "removed" if wanted is None else str(wanted)
                found.append(Difference(f"expect.requestHeaders[{name}]", said, actual or "not changed"))
    return list(dict.fromkeys(found))


def _response_headers(value: dict[str, Any], told: dict[str, Any], namespace: str) -> list[Difference]:
    found: list[Difference] = []
    local = {"set": told.get("answer", {}).get("headers", {})}
    for edits in [one.get("responseHeaders", {}) for one in _destinations(told)] or [local]:
        for name, wanted in value.items():
            low = name.lower()
            actual = edits.get("set", {}).get(low) or edits.get("add", {}).get(low)
            if wanted is None and low in edits.get("remove", ()):
                continue
            if wanted is None or actual != str(wanted):
                said = "removed" if wanted is None else str(wanted)
                found.append(Difference(f"expect.responseHeaders[{name}]", said, actual or "not changed"))
    return list(dict.fromkeys(found))


def _reason(value: str, told: dict[str, Any], namespace: str) -> list[Difference]:
    because = told.get("because", "")
    return [] if value in because else [Difference("expect.reason", value, because or "none")]


def _redirect(value: Any, told: dict[str, Any], namespace: str) -> list[Difference]:
    answer = told.get("answer", {}) if told["decision"] == "redirect" else {}
    location = answer.get("headers", {}).get("location")
    if value == "none" or isinstance(value, str):
        return _plain("redirect", None if value == "none" else value, location)
    wanted = build(value, Redirect).value
    found = _plain("redirect.location", wanted.location, location) if wanted.location is not None else []
    return found + (_plain("redirect.status", wanted.status, answer.get("status")) if wanted.status is not None else [])


def _timeout(value: Any, told: dict[str, Any], namespace: str) -> list[Difference]:
    actual = told.get("policy", {}).get("timeoutSeconds", 0.0)
    wanted = 0.0 if value == "none" else parse_duration(str(value))
    return [] if wanted == actual else [Difference("expect.timeout", str(value), f"{actual:.4g}s" if actual else "none")]


def _retries(value: Any, told: dict[str, Any], namespace: str) -> list[Difference]:
    actual = told.get("policy", {}).get("retries") or {"attempts": 0, "on": [], "perTryTimeoutSeconds": None}
    if value == "none" or isinstance(value, int):
        return _plain("retries", 0 if value == "none" else value, actual["attempts"])
    wanted = build(value, Retries).value
    found = _plain("retries.attempts", wanted.attempts, actual["attempts"]) if wanted.attempts is not None else []
    if wanted.per_try_timeout is not None:
        seconds = actual["perTryTimeoutSeconds"] or 0.0
        if parse_duration(wanted.per_try_timeout) != seconds:
            actual_time = f"{seconds:.4g}s" if seconds else "none"
            found.append(Difference("expect.retries.perTryTimeout", wanted.per_try_timeout, actual_time))
    if wanted.retry_on is not None:
        text = wanted.retry_on if isinstance(wanted.retry_on, str) else ",".join(map(str, wanted.retry_on))
        conditions = sorted(part.strip() for part in text.split(",") if part.strip())
        if conditions != sorted(actual["on"]):
            found.append(Difference("expect.retries.retryOn", _say(conditions), _say(sorted(actual["on"]))))
    return found


def _fault(name: str) -> Callable[[Any, dict[str, Any], str], list[Difference]]:
    def judge(value: Any, told: dict[str, Any], namespace: str) -> list[Difference]:
        actual = told.get("policy", {}).get(name)
        if value == "none":
            return _plain(name, None, actual)
        if isinstance(value, int):
            return _plain(name, value, (actual or {}).get("status"))
        if actual is None:
            return [Difference(f"expect.{name}", _say(value), "none")]
        wanted = build(value, Fault).value
        found = _plain(f"{name}.status", wanted.status, actual.get("status")) if wanted.status is not None else []
        if wanted.after is not None and parse_duration(wanted.after) != actual.get("seconds"):
            found.append(Difference(f"expect.{name}.after", wanted.after, f"{actual.get('seconds', 0):.4g}s"))
        if wanted.percent is not None and abs(wanted.percent - actual["percent"]) > 0.0001:
            found.append(Difference(f"expect.{name}.percent", _say(wanted.percent), _say(actual["percent"])))
        return found

    return judge


def _mirrors(value: Any, told: dict[str, Any], namespace: str) -> list[Difference]:
    mirrors: Sequence[dict[str, Any]] = told.get("policy", {}).get("mirrors", ())
    if value == "none":
        return _plain("mirrors", None, [one["cluster"] for one in mirrors] or None)
    right = len(mirrors) == len(value) and all(
        any(_is(one, name, namespace) and abs(one["percent"] - share) < 0.01 for one in mirrors) for name, share in value.items()
    )
    actual = {one["cluster"]: float(one["percent"]) for one in mirrors}
    return [] if right else [Difference("expect.mirrors", _percents(value), _percents(actual))]


_JUDGES: dict[str, Callable[[Any, dict[str, Any], str], list[Difference]]] = {
    "decision": _key("decision"),
    "status": _status,
    "body": _body,
    "reason": _reason,
    "rule": _rule,
    "cluster": _every("cluster", lambda one: str(one["cluster"])),
    "host": _every("host", lambda one: _parts(one)[2]),
    "subset": _every("subset", lambda one: _parts(one)[1]),
    "port": _every("port", lambda one: _parts(one)[0]),
    "weights": _weights,
    "endpoints": _endpoints,
    "path": _sent("path"),
    "authority": _sent("authority"),
    "request_headers": _request_headers,
    "response_headers": _response_headers,
    "redirect": _redirect,
    "timeout": _timeout,
    "retries": _retries,
    "delay": _fault("delay"),
    "abort": _fault("abort"),
    "mirrors": _mirrors,
}
