"""A decision of a sidecar in words for people: what ``explain`` prints.

In: the dict that ``meshproxy.explain`` gives. Out: lines. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from control.cli.offline import made_up

__all__ = ["lines"]

WIDTH = 13
_SHOWN = 12  # endpoints of one destination
_TAKEN_BEFORE = "a route before it matched"


def lines(told: dict[str, Any], who: str) -> Iterator[str]:
    """The whole explanation, a fact per line."""
    request = told["request"]
    yield f"{request['method']} http://{request['authority']}{request['path']} from {who}"
    if "pathAsGiven" in request:
        yield _fact("Path", f"{request['pathAsGiven']} is read as {request['path']}")
    yield ""
    yield _fact("Decision", _decision(told))
    yield _fact("Listener", told["listener"])
    steps = told.get("steps", ())
    for step in steps:
        if step["what"] == "virtual host" and step["taken"]:
            yield _fact("Host", f"{step['name']}: {step['reason']}")
    yield from _rule(told, steps)
    yield from _answer(told)
    for number, destination in enumerate(told.get("destinations", ())):
        yield from _destination(destination, "Destination" if not number else "")
    yield from _policy(told.get("policy", {}))
    for number, note in enumerate(told.get("notes", ())):
        yield _fact("Note" if not number else "", note)


def _fact(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}"


def _decision(told: dict[str, Any]) -> str:
    decision, status = told["decision"], told.get("status")
    if decision == "forward":
        many = len(told.get("destinations", ()))
        return "forward" if many == 1 else f"forward to one of {many} destinations, by weight"
    words = {
        "redirect": f"redirect: the client gets {status}",
        "direct response": f"answer {status} at once",
        "preflight": f"answer the CORS preflight: {status}",
        "fault": f"answer {status}: an injected fault aborts every request",
        "no route": f"answer {status}: no rule of this host matches (response flag NR)",
        "no cluster": f"answer {status}: the destination does not exist (response flag NC)",
        "no healthy upstream": f"answer {status}: no destination has an endpoint that takes requests (response flag UH)",
        "refused": f"refuse: {status}",
    }
    return words.get(decision, f"{decision} {status or ''}".strip())


def _rule(told: dict[str, Any], steps: Any) -> Iterator[str]:
    route = told.get("route")
    if route is not None:
        yield _fact("Rule", route.get("source") or f"{route['name']} (no VirtualService speaks for this host here)")
    taken = next((step for step in steps if step["what"] == "route" and step["taken"]), None)
    if taken is not None:
        yield _fact("", f"because {taken['reason']}")
    lost = [step for step in steps if not step["taken"] and step["what"] in ("route", "listener")]
    first = "Not taken"
    later = [step for step in lost if step["reason"] == _TAKEN_BEFORE]
    for step in lost:
        if step not in later:
            yield _fact(first, f"{step['source'] or step['name']}: {step['reason']}")
            first = ""
    if later:
        names = ", ".join(step["source"] or step["name"] for step in later[:4])
        more = f" and {len(later) - 4} more" if len(later) > 4 else ""
        yield _fact(first, f"{names}{more}: {_TAKEN_BEFORE}")
    if route is None or not route.get("source"):
        misses = [step for step in steps if step["what"] == "virtual host" and not step["taken"]]
        for number, step in enumerate(misses[:5] if route is None or route["name"] in ("allow_any", "block_all") else ()):
            yield _fact("Other hosts" if not number else "", f"{step['name']}: {step['reason']}".removeprefix(": "))


def _answer(told: dict[str, Any]) -> Iterator[str]:
    answer = told.get("answer")
    if answer is None:
        return
    body = answer.get("body", "")
    shown = f"body {body!r}" if body and len(body) <= 200 else f"a body of {len(body)} characters" if body else "no body"
    yield _fact("Answer", f"{answer['status']}, {shown}")
    for name, value in answer.get("headers", {}).items():
        yield _fact("", f"{name}: {value}")


def _destination(told: dict[str, Any], name: str) -> Iterator[str]:
    source = told.get("source")
    yield _fact(name, f"{_number(told['percent'])} %  {told['cluster']}" + (f"  ({source})" if source else ""))
    if told.get("known"):
        dialled = any("healthy" not in one for one in told.get("endpoints", ()))  # passed through: nobody balances
        words = ["" if dialled else told.get("loadBalancer", "")]
        if told.get("limits"):
            words.append("limits " + ", ".join(f"{key} {value}" for key, value in told["limits"].items()))
        outlier = told.get("outlierDetection")
        if outlier:
            words.append(_outlier(outlier))
        if any(words):
            yield _fact("", "       " + "; ".join(word for word in words if word))
    forwarded = told.get("forwarded", {})
    yield _fact("", f"       sent as {forwarded.get('path')} to host {forwarded.get('authority')}")
    if forwarded.get("headersSet"):
        yield _fact("", "       with " + ", ".join(f"{key}: {value}" for key, value in forwarded["headersSet"].items()))
    if forwarded.get("headersRemoved"):
        yield _fact("", "       without " + ", ".join(forwarded["headersRemoved"]))
    for verb, value in told.get("responseHeaders", {}).items():
        what = ", ".join(value) if isinstance(value, list) else ", ".join(f"{key}: {text}" for key, text in dict(value).items())
        yield _fact("", f"       response: {verb} {what}")
    endpoints = told.get("endpoints", ())
    rows = [_endpoint(one) for one in endpoints[:_SHOWN]]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width)
        yield _fact("", f"       {cells}".rstrip())
    if len(endpoints) > _SHOWN:
        yield _fact("", f"       and {len(endpoints) - _SHOWN} more endpoints")
    if told.get("reason"):
        yield _fact("", f"       {told['reason']}")


def _endpoint(one: dict[str, Any]) -> tuple[str, str, str]:
    address = "" if made_up(one["address"]) and one.get("pod") else one["address"]
    who = " ".join(part for part in (one.get("pod", ""), one.get("version", "")) if part)
    state = one.get("state") or ("healthy" if one.get("healthy", True) else "unhealthy")
    if "backInSeconds" in one:
        state = f"ejected for {_number(one['backInSeconds'])} s more"
    if one.get("priority"):
        state += f", priority {one['priority']}"
    if one.get("weight"):
        state += f", weight {one['weight']}"
    return address, who, state


def _outlier(told: dict[str, Any]) -> str:
    counts = [f"{told['consecutive_5xx']} 5xx"] if told["consecutive_5xx"] else []
    counts += [f"{told['consecutive_gateway']} gateway errors"] if told["consecutive_gateway"] else []
    what = " or ".join(counts) or "nothing"
    return f"ejects after {what} for {_number(told['base_ejection'])} s, {told['max_ejection_percent']} % at most"


def _policy(told: dict[str, Any]) -> Iterator[str]:
    if "timeoutSeconds" in told:
        yield _fact("Timeout", f"{_number(told['timeoutSeconds'])} s for all tries together")
    retries = told.get("retries")
    if retries:
        words = [f"{retries['attempts']} more tries on {', '.join(retries['on'])}"]
        if retries.get("perTryTimeoutSeconds"):
            words.append(f"{_number(retries['perTryTimeoutSeconds'])} s each")
        words.append("on another endpoint if there is one" if retries["avoidsPreviousHosts"] else "on any endpoint")
        yield _fact("Retries", "; ".join(words))
    if "delay" in told:
        yield _fact("Fault", f"{_number(told['delay']['percent'])} % wait {_number(told['delay']['seconds'])} s first")
    if "abort" in told:
        yield _fact("Fault", f"{_number(told['abort']['percent'])} % are answered {told['abort']['status']}")
    for mirror in told.get("mirrors", ()):
        yield _fact("Mirror", f"{_number(mirror['percent'])} % also go to {mirror['cluster']}")
    if "cors" in told:
        yield _fact("CORS", told["cors"])


def _number(value: float) -> str:
    return f"{value:.4g}"
