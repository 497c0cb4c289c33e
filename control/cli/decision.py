"""A decision of a sidecar in words for people: what ``explain`` prints.

In: the dict that ``meshproxy.explain`` gives. Out: lines. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from control.cli.callee import verdict
from control.cli.offline import made_up

__all__ = ["entry", "lines"]

WIDTH = 13
_SHOWN = 12  # endpoints of one destination
_TAKEN_BEFORE = "a route before it matched"


def lines(told: dict[str, Any], who: str, reached: bool = False) -> Iterator[str]:
    """The whole explanation, a fact per line."""
    request = told["request"]
    scheme = request.get("scheme", "http")
    yield f"{request['method']} {scheme}://{request['authority']}{request['path']} {'at' if reached else 'from'} {who}"
    if "pathAsGiven" in request:
        yield _fact("Path", f"{request['pathAsGiven']} is read as {request['path']}")
    yield ""
    yield _fact("Decision", _decision(told))
    for destination in told.get("destinations", ()):
        if why := _in_vain(destination):
            yield _fact("", f"but no connection to {destination['cluster']} succeeds: {why}")
    for callee in told.get("callees", ()):
        if "told" in callee and (word := verdict(callee["told"])) != "lets it in":
            yield _fact("", f"but {_pod(callee)} {word}")
    yield _fact("Listener", told["listener"])
    yield from entry(told)
    steps = told.get("steps", ())
    for step in steps:
        if step["what"] == "virtual host" and step["taken"]:
            yield _fact("Host", f"{step['name']}: {step['reason']}")
    yield from _rule(told, steps)
    yield from _answer(told)
    for number, destination in enumerate(told.get("destinations", ())):
        yield from _destination(destination, "Destination" if not number else "")
    yield from _policy(told.get("policy", {}))
    for callee in told.get("callees", ()):
        yield from _callee(callee)
    for number, note in enumerate(told.get("notes", ())):
        yield _fact("Note" if not number else "", note)


def _fact(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}"


def _decision(told: dict[str, Any]) -> str:
    decision, status = told["decision"], told.get("status")
    if decision == "forward":
        many = len(told.get("destinations", ()))
        return "forward" if many == 1 else f"forward to one of {many} destinations, by weight"
    answer = f"answer {status}" if status else "reset the connection"  # of bytes
    words = {
        "redirect": f"redirect: the client gets {status}",
        "direct response": f"answer {status} at once",
        "preflight": f"answer the CORS preflight: {status}",
        "fault": f"answer {status}: an injected fault aborts every request",
        "no route": f"{answer}: no rule of this host matches (response flag NR)",
        "no cluster": f"{answer}: the destination does not exist (response flag NC)",
        "no healthy upstream": f"{answer}: no destination has an endpoint that takes requests (response flag UH)",
        "refused": f"refuse: {status}",
        "denied": f"{answer}: {_because(told)}",
        "not let in": f"refuse the connection: {told.get('mtls', {}).get('refused', '')}",
    }
    return words.get(decision, f"{decision} {status or ''}".strip())


def _in_vain(destination: dict[str, Any]) -> str:
    """Why nobody there can be spoken to."""
    refused = [one.get("refused", "") for one in destination.get("endpoints", ())]
    return str(destination.get("problem", "")) or (refused[0] if refused and all(refused) else "")


def _because(told: dict[str, Any]) -> str:
    """What decided; a token's fault begins with the status, which is said already."""
    return str(told.get("because", "")).removeprefix(f"{told.get('status')} ")


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
    if told.get("tls", {}).get("mode", "plaintext") != "plaintext" or "why" in told.get("tls", {}):
        for line in _tls(told["tls"]):
            yield _fact("", f"       {line}")
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
    if forwarded:
        yield _fact("", f"       sent as {forwarded.get('path')} to host {forwarded.get('authority')}")
    if forwarded.get("headersSet"):
        yield _fact("", "       with " + ", ".join(f"{key}: {value}" for key, value in forwarded["headersSet"].items()))
    if forwarded.get("headersRemoved"):
        yield _fact("", "       without " + ", ".join(forwarded["headersRemoved"]))
    for verb, value in told.get("responseHeaders", {}).items():
        what = ", ".join(value) if isinstance(value, list) else ", ".join(f"{key}: {text}" for key, text in dict(value).items())
        yield _fact("", f"       response: {verb} {what}")
    endpoints = told.get("endpoints", ())
    rows = [_endpoint(one, told.get("tls", {})) for one in endpoints[:_SHOWN]]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width)
        yield _fact("", f"       {cells}".rstrip())
    if len(endpoints) > _SHOWN:
        yield _fact("", f"       and {len(endpoints) - _SHOWN} more endpoints")
    if told.get("reason"):
        yield _fact("", f"       {told['reason']}")


def _tls(told: dict[str, Any]) -> Iterator[str]:
    if told["mode"] == "plaintext":
        yield f"in plaintext: mutual TLS is {told['why']}"
        return
    how = {"AUTO": "mutual TLS where a sidecar takes it", "ISTIO_MUTUAL": "mutual TLS"}.get(told["mode"], f"TLS, {told['mode']}")
    by = "automatic" if told["source"] == "automatic" else f"by {told['source']}"
    yield f"{how} ({by})" + (f", server name {told['sni']}" if told.get("sni") else "")
    names = [name.removeprefix("spiffe://") for name in told.get("identities", ())]
    if names:
        yield f"the server must be {' or '.join(names[:3])}" + (f" or one of {len(names) - 3} more" if len(names) > 3 else "")


def _endpoint(one: dict[str, Any], tls: dict[str, Any]) -> tuple[str, str, str]:
    address = "" if made_up(one["address"]) and one.get("pod") else one["address"]
    who = " ".join(part for part in (one.get("pod", ""), one.get("version", "")) if part)
    state = one.get("state") or ("healthy" if one.get("healthy", True) else "unhealthy")
    if "backInSeconds" in one:
        state = f"ejected for {_number(one['backInSeconds'])} s more"
    if one.get("priority"):
        state += f", priority {one['priority']}"
    if one.get("weight"):
        state += f", weight {one['weight']}"
    if tls.get("mode") == "AUTO":
        state += f", {one['tls']}"
    if one.get("refused"):
        state += f", its certificate would be refused: {one['refused']}"
    return address, who, state


# -- who may come in


def entry(told: dict[str, Any]) -> Iterator[str]:
    """What an inbound or gateway listener makes of the caller: mutual TLS, tokens, rules."""
    caller, mtls = told.get("caller", {}), told.get("mtls", {})
    if mtls:
        who = f"{caller['principal']} over mutual TLS" if caller.get("principal") else f"{caller.get('source')} in plaintext"
        yield _fact("Caller", who if mtls["mode"] in ("DISABLE", "PERMISSIVE", "STRICT") else f"{caller.get('source')} over TLS")
        source = f" ({mtls['source']})" if mtls.get("source") else ""
        demands = f"; demands {mtls['demands']}" if "demands" in mtls else ""
        yield _fact(
            "Mutual TLS" if mtls["mode"] in ("DISABLE", "PERMISSIVE", "STRICT") else "TLS", f"{mtls['mode']}{source}{demands}"
        )
    for number, step in enumerate(told.get("tokens", ())):
        what = "" if step["name"] == "verdict" else f"{step['name']} ({step['source']}): "
        yield _fact("Token" if not number else "", what + step["reason"])
    for number, row in enumerate(told.get("authorization", ())):
        yield _fact("Policies" if not number else "", _rule_of(row))
    if told.get("asks"):
        yield _fact("Asks", f"{', '.join(told['asks'])}; not asked here, taken to allow")


def _rule_of(row: dict[str, Any]) -> str:
    dry = " in dry run" if row["dry_run"] else ""
    which = f" rule {row['rule']}" if row["rule"] >= 0 else ""
    word = "" if row["rule"] < 0 else "matches: " if row["matched"] else "does not match: "
    return f"{row['action']} {row['policy']}{which}{dry}: {word}{row['reason']}"


def _callee(callee: dict[str, Any]) -> Iterator[str]:
    if "problem" in callee:
        yield _fact("Reached", f"{_pod(callee)}: {callee['problem']}, so nobody judges the request there")
        return
    told = callee["told"]
    yield _fact("Reached", f"{_pod(callee)} {verdict(told)}" + (f": {_because(told)}" if told.get("because") else ""))
    for line in entry(told):
        name, text = line[:WIDTH].strip(), line[WIDTH:]
        yield _fact("", f"       {name[:1].lower() + name[1:]:<12}{text}")


def _pod(callee: dict[str, Any]) -> str:
    return f"{callee['namespace']}/{callee['pod']}"


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
